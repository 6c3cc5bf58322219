// Package logsource is where log lines come from: files and standard input,
// plain, gzip or zstd, several of them merged by time (Source, Merger); and
// live ones that hand chunks of whole lines to a Sink: files followed through
// their rotations (Follow), a FIFO or standard input (Pipe), and rsyslog's
// omprog (Omprog). These have no memory of their own: what a restart needs is
// in the state of the last chunk, which the sink keeps together with its lines
// and gives back.
//
// What has been read is known by content, not by name: a Mark holds a hash of
// the first bytes of a log and how far it was read. So a log is found again
// after it was renamed, rotated, compressed or has grown, and only what is new
// in it is read.
//
// Lines are slices of a buffer, valid until the next call; nothing is
// allocated a line.
package logsource

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"

	"github.com/rolmail/rolmail/lib/sysexits"
)

const (
	// MaxLine is the longest line given out, bytes. The rest of a longer one
	// is skipped and counted. Postfix cuts its own at 2,000.
	MaxLine = 64 << 10

	// HeadLen is how much of a log, bytes, tells it from others.
	HeadLen = 4096

	// A buffer begins small, because of many files merged by time most wait
	// for their turn, and grows with use.
	firstBuffer = 16 << 10
	maxBuffer   = 512 << 10
)

// Source is one log. It is not safe for concurrent use, but for Progress.
type Source struct {
	name string
	raw  *countingReader
	file *os.File // the file behind it, if it can be sought in
	size int64    // bytes of a regular file, else 0
	base int64    // where in the file the content begins, if it is plain and can seek; else -1
	pack string   // "gzip", "zstd" or ""

	r        io.Reader // decompressed
	parked   bool      // r is still to be made
	origin   int64     // where in the file the compressed data begins
	decoded  int64     // bytes of it that had been read when it was parked
	closer   func()
	buf      []byte
	pos, end int  // buf[pos:end] is not yet given out
	eof      bool // r has no more
	err      error

	head []byte // the first bytes of the content
	sums map[int][32]byte
	off  int64 // content offset of buf[pos]

	// Where to begin again: before the line given out last, and after it.
	before, after int64
	floor         int64 // earlier runs came this far

	lines, cut int64
	partial    bool
	twin       *Source // the same log once more
}

// Open opens a file, or stdin for "-", and reads its first bytes.
func Open(name string, stdin io.Reader) (*Source, error) {
	if name == "-" {
		s := &Source{name: "standard input", raw: &countingReader{r: stdin}, base: -1}
		if f, ok := stdin.(*os.File); ok {
			if err := s.stat(f); err != nil {
				return nil, err
			}
		}
		return s, s.begin()
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, openError(name, err)
	}
	return openFile(name, f)
}

// openFile makes a source of an open file, which is the source's from then on.
func openFile(name string, f *os.File) (*Source, error) {
	s := &Source{name: name, raw: &countingReader{r: f}, base: -1, closer: func() { f.Close() }}
	err := s.stat(f)
	if err == nil {
		err = s.begin()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func openError(name string, err error) error {
	status := sysexits.IO
	if errors.Is(err, fs.ErrPermission) {
		status = sysexits.NoPerm
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return sysexits.Errorf(status, "%s: %w", name, err)
}

// stat notes the size of a regular file, and whether it can be sought in.
func (s *Source) stat(f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return openError(s.name, err)
	}
	if fi.IsDir() {
		return sysexits.Errorf(sysexits.Data, "%s: is a directory; name the log files in it", s.name)
	}
	if !fi.Mode().IsRegular() {
		return nil
	}
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil
	}
	s.file, s.base, s.origin, s.size = f, at, at, max(fi.Size()-at, 0)
	return nil
}

// begin looks what the content is and reads its head.
func (s *Source) begin() error {
	s.buf = make([]byte, firstBuffer)
	n, err := io.ReadFull(s.raw, s.buf[:magicLen])
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return s.readError(err)
	}
	if err := s.unpack(s.buf[:n]); err != nil {
		return err
	}
	if s.pack == "" {
		s.end = n
	} else {
		s.base = -1
	}
	s.dropLead()
	for s.end-s.pos < HeadLen && s.fill() {
	}
	if s.err != nil && s.end == s.pos {
		return s.readError(s.err)
	}
	s.head = bytes.Clone(s.buf[s.pos:min(s.end, s.pos+HeadLen)])
	s.sums = map[int][32]byte{}
	s.park()
	return nil
}

// dropLead drops what is before the content: a byte order mark, and the NULs
// that stand at the beginning of a log after a copytruncate rotation under a
// writer that does not append. Offsets count from behind them, and a hash of
// nothing but NULs would make all such logs one.
func (s *Source) dropLead() {
	var lead int64
	for {
		for s.pos < s.end && s.buf[s.pos] == 0 {
			s.pos++
			lead++
		}
		if s.end-s.pos >= 3 || !s.fill() {
			break
		}
	}
	if bytes.HasPrefix(s.buf[s.pos:s.end], []byte("\xef\xbb\xbf")) {
		s.pos += 3
		lead += 3
	}
	if s.base >= 0 {
		s.base += lead
	}
}

// Next returns the next line without its newline, or io.EOF at the end, or
// what broke the reading off. The line is valid until the next call.
func (s *Source) Next() ([]byte, error) {
	searched := 0
	for {
		if i := bytes.IndexByte(s.buf[s.pos+searched:s.end], '\n'); i >= 0 {
			return s.take(s.pos + searched + i), nil
		}
		s.skipNULs()
		if searched = s.end - s.pos; searched > MaxLine {
			return s.long()
		}
		if !s.fill() {
			break
		}
	}
	if s.err != nil {
		return nil, s.readError(s.err)
	}
	if s.pos == s.end {
		return nil, io.EOF
	}
	return s.last(), nil
}

// skipNULs drops NULs before a line, of which there may be more than a buffer
// full where a file has a hole.
func (s *Source) skipNULs() {
	for s.pos < s.end && s.buf[s.pos] == 0 {
		s.pos++
		s.off++
	}
}

// take gives out buf[pos:to] as a line and skips the newline behind it.
func (s *Source) take(to int) []byte {
	line := s.buf[s.pos:to]
	s.off += int64(to + 1 - s.pos)
	s.pos = to + 1
	s.before, s.after = s.after, s.off
	return s.trim(line)
}

// last gives out what stands after the last newline. The position stays
// before it, so that the next run reads the line whole.
func (s *Source) last() []byte {
	line := s.buf[s.pos:s.end]
	s.pos = s.end
	s.partial, s.before = true, s.after
	return s.trim(line)
}

func (s *Source) trim(line []byte) []byte {
	s.lines++
	for len(line) > 0 && line[0] == 0 {
		line = line[1:]
	}
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	if len(line) > MaxLine {
		s.cut++
		line = line[:MaxLine]
	}
	return line
}

// long gives out the first MaxLine bytes of a longer line, of which the buffer
// holds more than that and no newline. The rest is read over behind them, so
// that the position is that of the next line.
func (s *Source) long() ([]byte, error) {
	if len(s.buf) < maxBuffer {
		s.grow()
	}
	s.compact()
	s.off += int64(s.end)
	keep := MaxLine + 1 // so that trim sees that there was more
	for {
		n, ok := s.read(keep)
		if i := bytes.IndexByte(s.buf[keep:keep+n], '\n'); i >= 0 {
			s.pos, s.end = keep+i+1, keep+n
			s.off += int64(i + 1)
			s.before, s.after = s.after, s.off
			return s.trim(s.buf[:keep]), nil
		}
		s.off += int64(n)
		if ok {
			continue
		}
		if s.err != nil {
			return nil, s.readError(s.err)
		}
		s.pos, s.end = 0, keep
		return s.last(), nil
	}
}

// fill reads more into the buffer and reports whether there was any.
func (s *Source) fill() bool {
	switch {
	case s.end < len(s.buf) && s.pos == s.end:
		s.pos, s.end = 0, 0
	case s.end < len(s.buf):
	case s.pos == 0 || s.off > 0 && len(s.buf) < maxBuffer:
		s.grow()
	default:
		s.compact()
	}
	n, ok := s.read(s.end)
	s.end += n
	return ok
}

// read reads once to buf[at:]. It returns false at the end and on failure.
func (s *Source) read(at int) (int, bool) {
	if s.parked {
		s.err = s.unpark()
	}
	for tries := 0; !s.eof && s.err == nil; tries++ {
		n, err := s.r.Read(s.buf[at:])
		s.decoded += int64(n)
		switch {
		case err == io.EOF:
			s.eof = true
			s.release()
		case err != nil:
			s.err = err
		case n == 0 && tries > 100:
			s.err = io.ErrNoProgress
		}
		if n > 0 {
			return n, true
		}
	}
	return 0, false
}

// idleBuffers are buffers of maxBuffer bytes that no source uses now.
var idleBuffers sync.Pool

// grow gives a source that is being read its big buffer.
func (s *Source) grow() {
	b, _ := idleBuffers.Get().(*[maxBuffer]byte)
	if b == nil {
		b = new([maxBuffer]byte)
	}
	s.end = copy(b[:], s.buf[s.pos:s.end])
	s.pos, s.buf = 0, b[:]
}

func (s *Source) compact() {
	s.end = copy(s.buf, s.buf[s.pos:s.end])
	s.pos = 0
}

// readError says what broke the reading off, and where.
func (s *Source) readError(err error) error {
	if s.raw.err != nil || s.pack == "" {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return sysexits.Errorf(sysexits.IO, "%s: reading failed after %d lines: %w", s.name, s.lines, err)
	}
	what := "damaged"
	if errors.Is(err, io.ErrUnexpectedEOF) {
		what = "cut off"
	}
	return sysexits.Errorf(sysexits.Data, "%s: the %s data is %s after %d lines; what comes behind is lost: %w",
		s.name, s.pack, what, s.lines, err)
}

// Close releases the file and the buffers, and with them the last line. What
// is known of the source stays.
func (s *Source) Close() {
	s.release()
	if s.closer != nil {
		s.closer()
		s.closer = nil
	}
	if len(s.buf) == maxBuffer {
		idleBuffers.Put((*[maxBuffer]byte)(s.buf))
	}
	s.buf, s.pos, s.end, s.eof, s.parked = nil, 0, 0, true, false
}

// Name is the name of the file.
func (s *Source) Name() string { return s.name }

// Cut is how many lines were longer than MaxLine.
func (s *Source) Cut() int64 { return s.cut }

// Partial reports whether the line given out last has no newline behind it.
func (s *Source) Partial() bool { return s.partial }

// Progress is how many bytes of the file have been read, compressed if it is,
// of how many; of 0 if nobody knows. It may be called at any time.
func (s *Source) Progress() (done, size int64) { return s.raw.n.Load(), s.size }

// countingReader counts what is read, and keeps its failure apart from a
// decompressor's.
type countingReader struct {
	r   io.Reader
	n   atomic.Int64
	err error
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n.Add(int64(n))
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}
