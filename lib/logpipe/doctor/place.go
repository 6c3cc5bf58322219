package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/rolmail/rolmail/lib/config"
	"github.com/rolmail/rolmail/lib/maillog/store"
)

// clock looks at what keeps this host's clock right, and at the database's.
func (h *host) clock() {
	if ok, err := h.Synchronised(); err == nil && !ok {
		h.add(Blurs, "clock", "this host", "nothing keeps the clock right: lines of several hosts are put in a wrong order",
			"systemctl enable --now systemd-timesyncd, or chrony; in a container, on its host")
	}
	if h.DBTime == nil {
		return
	}
	before := h.Now()
	db, err := h.DBTime(h.ctx)
	if err != nil {
		h.add(Hint, "clock", "the database", "its time could not be asked: "+err.Error(), "look at rol-logpipe status")
		return
	}
	// The answer is from between two moments; the nearer one is compared.
	after := h.Now()
	d := db.Sub(after)
	if e := before.Sub(db); e > 0 {
		d = e
	}
	if d > dbAhead {
		h.add(Blurs, "clock", "the database", fmt.Sprintf("its clock and this host's are %s apart", span(d)),
			"keep the clocks of all hosts with chrony or systemd-timesyncd")
	}
}

// spool looks at where lines wait for the database.
func (h *host) spool() {
	if h.Spool == "" {
		return
	}
	dir := h.path(h.Spool)
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		h.add(Loses, "spool", h.Spool, "the spool cannot be looked at: "+reason(err), "run rol-logpipe as a user who may, such as rol")
		return
	case !st.IsDir():
		h.add(Loses, "spool", h.Spool, "the spool is no directory", "name a directory: maillog_spool = /var/lib/rol/spool")
		return
	case st.Mode().Perm()&0o007 != 0:
		h.add(Hint, "spool", h.Spool, "everybody on this host can read the spool, and so who wrote to whom", "chmod o-rwx "+h.Spool)
	}
	fsys, err := h.FileSystem(dir)
	if err != nil {
		h.add(Hint, "spool", h.Spool, "its file system could not be asked: "+err.Error(), "look at it as a user who may")
		return
	}
	if fsys.Memory {
		h.add(Loses, "spool", h.Spool, "the spool is in memory: what waits there is lost at a restart of the host", "maillog_spool = /var/lib/rol/spool")
	}
	if fsys.Network {
		h.add(Hint, "spool", h.Spool, "the spool is on a network file system, which may be away just when the database is", "maillog_spool = /var/lib/rol/spool")
	}
	if free := fsys.Free + used(dir); h.SpoolSize > 0 && free < h.SpoolSize {
		h.add(Loses, "spool", h.Spool, fmt.Sprintf("the spool may grow to %s and has room for %s: a long outage of the database fills the disk, "+
			"and lines that cannot wait at their source are lost", size(h.SpoolSize), size(free)),
			fmt.Sprintf("maillog_spool_size = %dM, or a larger disk", max(free*8/10>>20, 1)))
	}
}

// used is what the files of a directory take, in bytes.
func used(dir string) (n int64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
	}
	return n
}

// size is a number of bytes for people.
func size(n int64) string {
	if n >= 1<<30 {
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// databases looks at where the rows go.
func (h *host) databases() {
	for _, db := range h.Databases {
		kind, path, err := store.Split(db)
		if err != nil {
			continue // the service says so when it starts
		}
		switch kind {
		case "sqlite":
			h.sqlite(absolute(path))
		case "mysql":
			h.mysql(absolute(path))
		}
	}
}

func (h *host) sqlite(path string) {
	if st, err := os.Stat(h.path(path)); err == nil && st.Mode().Perm()&0o004 != 0 {
		h.add(Hint, "database", path, "everybody on this host can read who wrote to whom", "chmod o-rwx "+path)
	}
	if fsys, err := h.FileSystem(h.path(filepath.Dir(path))); err == nil && fsys.Memory {
		h.add(Loses, "database", path, "the database is in memory: it is lost at a restart of the host", "maillog_db = sqlite:/var/lib/rol/maillog.db")
	} else if err == nil && fsys.Network {
		h.add(Loses, "database", path, "SQLite cannot keep its promises on a network file system", "maillog_db = sqlite:/var/lib/rol/maillog.db")
	}
}

func (h *host) mysql(path string) {
	st, err := os.Stat(h.path(path))
	if err == nil {
		var f *os.File
		if f, err = os.Open(h.path(path)); err == nil {
			_ = f.Close()
		}
	}
	if err != nil {
		h.add(Loses, "database", path, "the database's file cannot be read: "+reason(err), "create it, and let the user of rol-logpipe read it")
		return
	}
	if st.Mode().Perm()&0o004 == 0 {
		return
	}
	if f, err := config.Parse(filepath.Base(path), []byte(h.read(path))); err == nil {
		if p, ok := f.Lookup("password"); ok && p != "" {
			h.add(Hint, "database", path, "everybody on this host can read the password", "chmod o-rwx "+path)
		}
	}
}
