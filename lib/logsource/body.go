package logsource

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// body is one incarnation of a log: what stood under the name from one
// rotation to the next. It is held open, so that its inode is not given to
// another file, and is read wherever it was renamed to.
type body struct {
	ident
	name string // where it was found
	f    *os.File
	src  *Source // reads it if it is compressed

	base   int64  // where in the file the content begins
	first  []byte // the first bytes of the content, as of the opening
	head   []byte // the first bytes that were read, HeadLen at most
	before []byte // the bytes before off, tailLen at most
	tail   []byte // the bytes before tailAt, as they were when it was recognised by them
	tailAt int64

	stat    unix.Stat_t // as seen last
	changed time.Time   // when that differed from the look before
	fresh   bool        // stat has not been read up to
	shrunk  bool        // it became empty or shorter before anything was read
	checked bool        // what came between the opening and the first bytes is known
}

// fit is how well a body fits an ident.
type fit int

const (
	fitNone   fit = iota
	fitPrefix     // it begins the same and ends before the position
	fitWhole      // it is that log
)

var errNoFile = errors.New("is no regular file")

// openBody opens a log to see what it is. Nothing but a regular file is
// opened: opening a FIFO wakes who waits for a reader.
func openBody(name string) (*body, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, errNoFile
	}
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	b := &body{name: name, f: f, changed: time.Now(), fresh: true}
	if err = b.look(); err == nil && b.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errNoFile
	}
	if err == nil {
		err = b.peek()
	}
	if err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// look sees how the file is now.
func (b *body) look() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(b.f.Fd()), &st); err != nil {
		return &fs.PathError{Op: "fstat", Path: b.name, Err: err}
	}
	if st.Size != b.stat.Size || st.Mtim != b.stat.Mtim || st.Ctim != b.stat.Ctim && st.Size != 0 {
		b.fresh = true
		if st.Size != b.stat.Size || st.Mtim != b.stat.Mtim {
			b.changed = time.Now()
			b.shrunk = b.off == 0 && b.ino != 0 && (st.Size == 0 || st.Size < b.stat.Size)
		}
	}
	b.stat = st
	b.dev, b.ino, b.mtime = uint64(st.Dev), st.Ino, st.Mtim.Nano()
	return nil
}

// peek reads the first bytes and finds out whether it is compressed.
func (b *body) peek() error {
	b.first, b.base = nil, 0
	buf := make([]byte, HeadLen)
	n, err := b.f.ReadAt(buf, 0)
	if err != nil && err != io.EOF {
		return err
	}
	buf = buf[:n]
	if isPacked(buf) {
		dup, err := unix.FcntlInt(b.f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if b.src, err = openFile(b.name, os.NewFile(uintptr(dup), b.name)); err != nil {
			return err
		}
		b.first = b.src.head
		return nil
	}
	lead, ok, err := b.lead(buf)
	if err != nil || !ok {
		return err
	}
	b.base = lead
	n, err = b.f.ReadAt(buf[:cap(buf)], lead)
	if err != nil && err != io.EOF {
		return err
	}
	b.first = buf[:n]
	return nil
}

// isPacked tells whether unpack knows what to do with a file, or what to say.
func isPacked(b []byte) bool {
	for _, magic := range []string{"\x1f\x8b", "\x28\xb5\x2f\xfd"} {
		if bytes.HasPrefix(b, []byte(magic)) {
			return true
		}
	}
	for _, t := range foreignPackers {
		if bytes.HasPrefix(b, []byte(t.magic)) {
			return true
		}
	}
	return false
}

// lead finds where the content begins, as dropLead does: behind NULs, of which
// there are as many as the log had bytes when it was truncated under a writer
// that does not append, and a byte order mark. ok is false if there is nothing
// else yet.
func (b *body) lead(buf []byte) (at int64, ok bool, err error) {
	for {
		rest := bytes.TrimLeft(buf, "\x00")
		at += int64(len(buf) - len(rest))
		if len(rest) > 0 {
			if bytes.HasPrefix(rest, []byte("\xef\xbb\xbf")) {
				at += 3
			}
			return at, true, nil
		}
		next, err := unix.Seek(int(b.f.Fd()), at, unix.SEEK_DATA)
		if err == nil {
			at = next
		} else if err == unix.ENXIO { // behind the last data
			return 0, false, nil
		}
		buf = buf[:cap(buf)]
		n, err := b.f.ReadAt(buf, at)
		if err != nil && err != io.EOF {
			return 0, false, err
		}
		if buf = buf[:n]; n == 0 {
			return 0, false, nil
		}
	}
}

// fits tells whether this is the log that an ident speaks of.
func (b *body) fits(id *ident) fit {
	if id.headLen == 0 || len(b.first) == 0 {
		return fitNone
	}
	if b.src != nil {
		return b.packedFits(id)
	}
	if b.size() < id.off {
		if id.startsWith(b.first) {
			return fitPrefix
		}
		return fitNone
	}
	if !id.hasHead(b.first) {
		return fitNone
	}
	if id.tailLen > 0 {
		var buf [tailLen]byte
		n, _ := b.f.ReadAt(buf[:id.tailLen], b.base+id.off-int64(id.tailLen))
		if n < id.tailLen || tailSum(buf[:n]) != id.tail {
			return fitNone
		}
		b.tail, b.tailAt = append([]byte(nil), buf[:n]...), id.off
	}
	return fitWhole
}

// packedFits is fits for compressed content. It must be read up to the
// position to see what stands before that.
func (b *body) packedFits(id *ident) fit {
	if !id.hasHead(b.first) {
		return fitNone
	}
	s := b.src
	if s.off > id.off-int64(id.tailLen) || s.eof {
		if again, err := openBody(b.name); err == nil && again.ino == b.ino && again.src != nil {
			s.Close()
			b.src, again.src = again.src, nil
			again.close()
			s = b.src
		}
	}
	s.skip(id.off - int64(id.tailLen))
	for s.end-s.pos < id.tailLen && s.fill() {
	}
	at := s.off + int64(min(s.end-s.pos, id.tailLen))
	if at < id.off {
		return fitPrefix
	}
	if id.tailLen > 0 && tailSum(s.buf[s.pos:s.pos+id.tailLen]) != id.tail {
		return fitNone
	}
	s.skip(id.off)
	return fitWhole
}

// size is how many bytes of content a plain log has.
func (b *body) size() int64 { return b.stat.Size - b.base }

// begin sets the position. The log may have been truncated since it was
// recognised: what it was recognised by is not read again, because by that its
// copy must be.
func (b *body) begin(off int64) error {
	b.ident = ident{dev: b.dev, ino: b.ino, mtime: b.mtime, off: off}
	b.fresh = true
	b.head = append([]byte(nil), b.first[:min(off, int64(len(b.first)))]...)
	b.before = nil
	if b.src != nil {
		if b.src.off != off {
			return b.again(off)
		}
	} else if n := min(off, tailLen); n > 0 && b.tailAt == off && int64(len(b.tail)) == n {
		b.before = b.tail
		b.ends(b.before)
	} else if n > 0 {
		b.before = make([]byte, n)
		if _, err := b.f.ReadAt(b.before, b.base+off-n); err != nil && err != io.EOF {
			return err
		}
		b.ends(b.before)
	}
	if off > 0 {
		b.begins(b.head)
	}
	return nil
}

// again begins to read compressed content once more.
func (b *body) again(off int64) error {
	n, err := openBody(b.name)
	if err != nil {
		return err
	}
	if n.src == nil || n.ino != b.ino {
		n.close()
		return &fs.PathError{Op: "open", Path: b.name, Err: fs.ErrNotExist}
	}
	b.src.Close()
	b.src, n.src = n.src, nil
	n.close()
	b.src.skip(off)
	return nil
}

// advance moves the position behind p, bytes of content that stand at it.
func (b *body) advance(p []byte) {
	b.off += int64(len(p))
	if len(b.head) < HeadLen {
		b.head = append(b.head, p[:min(len(p), HeadLen-len(b.head))]...)
		b.begins(b.head)
	}
	if len(p) >= tailLen {
		b.before = append(b.before[:0], p[len(p)-tailLen:]...)
	} else {
		drop := max(len(b.before)+len(p)-tailLen, 0)
		b.before = append(b.before[:copy(b.before, b.before[drop:])], p...)
	}
	b.ends(b.before)
}

var errTruncated = errors.New("was truncated")

// read reads what stands at the position to buf. errTruncated means that what
// was read before is no longer there: the content is another one. That is
// looked at in the same read and behind it, so that nothing of another content
// is taken for the rest of this one.
func (b *body) read(buf []byte) ([]byte, error) {
	if b.shrunk {
		return nil, errTruncated
	}
	if b.off == 0 {
		return b.readFirst(buf)
	}
	t := len(b.before)
	n, err := b.f.ReadAt(buf, b.base+b.off-int64(t))
	if err != nil && err != io.EOF {
		return nil, err
	}
	if n < t || !bytes.Equal(buf[:t], b.before) {
		return nil, errTruncated
	}
	var head [HeadLen]byte
	k, err := b.f.ReadAt(head[:len(b.head)], b.base)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if !bytes.Equal(head[:k], b.head) {
		return nil, errTruncated
	}
	return buf[t:n], nil
}

// readFirst reads the beginning.
func (b *body) readFirst(buf []byte) ([]byte, error) {
	n, err := b.f.ReadAt(buf, b.base)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if !bytes.HasPrefix(buf[:n], b.first) {
		return nil, errTruncated
	}
	return buf[:n], nil
}

func (b *body) close() {
	if b.src != nil {
		b.src.Close()
	}
	if b.f != nil {
		b.f.Close()
	}
}
