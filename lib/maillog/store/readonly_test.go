package store

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/rolmail/rolmail/lib/maillog/store/storetest"
)

// tree is the content of a directory, as text; without the log's index, which
// is shared memory.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b bytes.Buffer
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Ext(e.Name()) == ".db-shm" {
			data = nil
		}
		fmt.Fprintf(&b, "%s %d %x\n", e.Name(), len(data), data)
	}
	return b.String()
}

// copied copies the files of a database as they are at the moment, as a kill
// or a backup leaves them.
func copied(t *testing.T, path, dir string) string {
	t.Helper()
	to := filepath.Join(dir, "maillog.db")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		data, err := os.ReadFile(path + suffix)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to+suffix, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// Searching leaves everything as it was: after a clean end, and with a log
// that a killed writer left.
func TestReadingChangesNothing(t *testing.T) {
	db := openTemp(t)
	commit(t, db, numbered(0))
	finish(t, db)
	commit(t, db, numbered(1))
	killed, closed := t.TempDir(), t.TempDir()
	copied(t, db.Where(), killed)
	db.Close()
	copied(t, db.Where(), closed)
	for _, dir := range []string{killed, closed} {
		before := tree(t, dir)
		ro := openAt(t, filepath.Join(dir, "maillog.db"), ReadOnly)
		if got := find(t, ro, &Query{}); len(got) != 2*batchRows {
			t.Errorf("%d rows", len(got))
		}
		ro.Close()
		if tree(t, dir) != before {
			t.Error("reading changed something")
		}
	}
}

// A user who may read the file and not write its directory can search, while
// somebody writes and when nobody does.
func TestReadingWithoutWriting(t *testing.T) {
	dir, err := os.MkdirTemp("/var/tmp", "rol-ro-")
	if err != nil {
		t.Skip(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "maillog.db")
	db := openAt(t, path, ReadWrite)
	commit(t, db, numbered(0))
	count := func(want int) {
		t.Helper()
		for _, f := range []string{path, path + "-wal", path + "-shm"} {
			_ = os.Chmod(f, 0o444)
		}
		cmd := asNobody(t, dir)
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != fmt.Sprintln(want, "rows") {
			t.Errorf("%q, %v; want %d rows", out, err, want)
		}
		for _, f := range []string{path, path + "-wal", path + "-shm"} {
			_ = os.Chmod(f, 0o644)
		}
	}
	count(batchRows) // the writer is there
	commit(t, db, numbered(1))
	count(2 * batchRows)
	db.Close()
	count(2 * batchRows) // and gone
}

// asNobody is this binary, counting rows as a user without rights.
func asNobody(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	cmd := role(t, "count", filepath.Join(dir, "maillog.db"))
	if os.Getuid() == 0 {
		// The binary lies where nobody may not look.
		data, err := os.ReadFile(cmd.Path)
		if err != nil {
			t.Fatal(err)
		}
		bin, err := os.CreateTemp("/var/tmp", "rol-store-test-")
		if err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { os.Remove(bin.Name()) })
		if _, err := bin.Write(data); err != nil {
			t.Fatal(err)
		}
		bin.Close()
		if err := os.Chmod(bin.Name(), 0o755); err != nil {
			t.Fatal(err)
		}
		cmd.Path = bin.Name()
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o755) })
	return cmd
}

// Readers that began before a writer, and go on while it writes, copies its
// log home, ends and begins again, see whole batches.
func TestReadersBesideAWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "maillog.db")
	db := openAt(t, path, ReadWrite)
	commit(t, db, numbered(0))
	db.Close()
	var readers sync.WaitGroup
	stop := make(chan struct{})
	ro := openAt(t, path, ReadOnly)
	for range 3 {
		readers.Go(func() {
			for last := 0; ; {
				rows := 0
				res, err := ro.Search(t.Context(), &Query{Limit: pageRows, OldestFirst: true})
				if err != nil {
					t.Error(err)
					return
				}
				for _, err := range res.All() {
					if err != nil {
						t.Error(err)
						return
					}
					rows++
				}
				if rows < last || rows < min(pageRows, batchRows) {
					t.Errorf("%d rows", rows)
				}
				last = rows
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for round := range int64(5) {
		db := openAt(t, path, ReadWrite)
		for n := range int64(4) {
			commit(t, db, &Batch{Rows: storetest.New(uint64(round*10+n+2), noon+3_600_000*(n+1), 1000).Rows(batchRows)})
		}
		finish(t, db)
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	readers.Wait()
	if got := find(t, ro, &Query{}); len(got) != 21*batchRows {
		t.Errorf("%d rows", len(got))
	}
}
