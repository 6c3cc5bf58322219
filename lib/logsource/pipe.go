package logsource

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rolmail/rolmail/lib/sysexits"
)

// StdinKey is the key of standard input.
const StdinKey = "stdin"

// PipeOptions are what a Pipe may be told. Zero values get the defaults.
type PipeOptions struct {
	Make   fs.FileMode   // make the FIFO with this mode if nothing has the name; 0: wait for it
	Poll   time.Duration // how often is looked whether the name is still that of the FIFO, 1 s
	Silent time.Duration // how long nobody may write before it is spoken of, 10 min
	Log    *slog.Logger
}

// Pipe takes lines from a FIFO, or from a pipe that it was started with.
//
// Nothing is lost when it is killed: the bytes are looked at with tee(2), the
// lines go to the sink, and only then just these bytes are read out of the
// pipe. Killed in between, the next start finds them there again; the state
// has their length and hash, and they are read out without being handed on
// again. If the same bytes come again just behind a restart, they are taken
// for those.
//
// A line without its end stays in the pipe, unless the pipe is full or the
// line longer than MaxLine: it is cut then.
//
// A FIFO is opened for reading and writing, so that opening it waits for
// nobody and it has no end when the writers go. The kernel throws away what is
// in a FIFO when nobody has it open. So somebody must hold it while this
// program is away: systemd does (ListenFIFO= in a socket unit), and so does a
// writer that keeps it open. rsyslog's ompipe does, but closes it for a moment
// at SIGHUP. It opens the FIFO so that it does not wait: a line longer than
// 4096 bytes (PIPE_BUF) that finds no room for all of it is torn, and without
// action.resumeRetryCount="-1" and a queue lines are dropped when it is full.
//
// Input that is no pipe is read as it comes, to its end: a file, a terminal, a
// socket. What was read and not yet handed on is lost if the program is killed.
type Pipe struct {
	path  string
	file  *os.File
	key   string
	sink  Sink
	opt   PipeOptions
	log   *slog.Logger
	count counters

	tee   [2]int // a pipe of our own
	buf   []byte
	skip  bool // the rest of a line too long is to be skipped
	last  pipeState
	state [pipeStateLen]byte
	chunk Chunk
	quiet time.Time // since when nobody writes; zero: that was said
	said  complaint

	looked func() // for tests: between the look and the question who writes
}

// pipeState is the state: what is to be read out of the pipe next.
type pipeState struct {
	skip bool
	n    int // bytes
	sum  [sha256.Size]byte
}

const pipeStateLen = 2 + 4 + sha256.Size

func (s *pipeState) put(b *[pipeStateLen]byte) {
	b[0], b[1] = stateVersion, 0
	if s.skip {
		b[1] = flagSkip
	}
	binary.LittleEndian.PutUint32(b[2:], uint32(s.n))
	copy(b[6:], s.sum[:])
}

func (s *pipeState) get(b []byte) error {
	*s = pipeState{}
	if len(b) == 0 {
		return nil
	}
	if len(b) != pipeStateLen || b[0] != stateVersion || b[1]&^flagSkip != 0 {
		return errState
	}
	s.skip, s.n, s.sum = b[1] != 0, int(binary.LittleEndian.Uint32(b[2:])), [sha256.Size]byte(b[6:])
	if s.n > MaxChunk {
		return errState
	}
	return nil
}

// NewPipe makes a source of a FIFO by its name.
func NewPipe(path string, sink Sink, opt PipeOptions) (*Pipe, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, sysexits.Wrap(sysexits.IO, err)
	}
	p := newPipe(sink, opt)
	p.path, p.key = abs, "fifo:"+abs
	if len(p.key) > MaxKey {
		return nil, sysexits.Errorf(sysexits.Usage, "the FIFO's name is longer than %d bytes: %.60q", MaxKey, path)
	}
	return p, nil
}

// NewInput makes a source of standard input, or of another open file with its
// own key.
func NewInput(f *os.File, key string, sink Sink, opt PipeOptions) *Pipe {
	p := newPipe(sink, opt)
	p.file, p.key = f, orElse(key, StdinKey)
	return p
}

func newPipe(sink Sink, opt PipeOptions) *Pipe {
	opt.Poll = orElse(opt.Poll, time.Second)
	opt.Silent = orElse(opt.Silent, 10*time.Minute)
	return &Pipe{sink: sink, opt: opt, log: orElse(opt.Log, slog.New(slog.DiscardHandler))}
}

// Stats may be called at any time.
func (p *Pipe) Stats() Stats {
	st := p.count.stats()
	st.Trouble = p.said.get()
	return st
}

// Run takes lines until ctx is done, or the input ends, which a FIFO does not;
// it returns nil then.
func (p *Pipe) Run(ctx context.Context) error {
	if err := p.last.get(p.sink.State(p.key)); err != nil {
		return stateError(p.key, err)
	}
	p.skip, p.buf = p.last.skip, make([]byte, MaxChunk)
	w, err := newWaiter(ctx)
	if err != nil {
		return err
	}
	defer w.close()
	if p.tee, err = newTee(); err != nil {
		return err
	}
	defer unix.Close(p.tee[0])
	defer unix.Close(p.tee[1])
	if p.path != "" {
		err = p.runFIFO(ctx, w)
	} else {
		err = p.runInput(ctx, w)
	}
	return nilIfDone(ctx, err)
}

// newTee makes the pipe that the bytes are looked at through.
func newTee() (fds [2]int, err error) {
	if err = unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return fds, sysexits.Errorf(sysexits.IO, "pipe: %w", err)
	}
	widen(fds[0])
	return fds, nil
}

// pipeSize is what a pipe is made to hold, bytes: what the kernel allows to
// everybody. With less, the chunks are smaller.
const pipeSize = 1 << 20

func widen(fd int) {
	if n, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0); err == nil && n < pipeSize {
		unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, pipeSize)
	}
}

// runFIFO takes from the FIFO that has the name, and from the next when it is
// replaced.
func (p *Pipe) runFIFO(ctx context.Context, w *waiter) error {
	for {
		fd, err := p.open()
		if err != nil {
			p.say(err)
			if _, err := w.wait(ctx, -1, p.opt.Poll); err != nil {
				return err
			}
			continue
		}
		if p.said.get() != "" {
			p.said.set("")
			p.log.Info("reading the FIFO", "file", p.path)
		}
		err = p.drain(ctx, w, fd)
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
}

func (p *Pipe) say(err error) {
	if text := ioError(p.path, err).Error(); text != p.said.get() {
		p.said.set(text)
		p.log.Warn("cannot read the FIFO; it is tried again", "file", p.path, "error", err)
	}
}

// open opens the FIFO, or makes it.
func (p *Pipe) open() (int, error) {
	if p.opt.Make != 0 {
		if err := unix.Mkfifo(p.path, 0o600); err == nil {
			if err := os.Chmod(p.path, p.opt.Make.Perm()); err != nil { // whatever the umask
				return -1, err
			}
		} else if err != unix.EEXIST {
			return -1, err
		}
	}
	fi, err := os.Stat(p.path)
	if err != nil {
		return -1, err
	}
	if fi.Mode().Type() != fs.ModeNamedPipe {
		return -1, errNoFIFO
	}
	fd, err := unix.Open(p.path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		unix.Close(fd)
		return -1, errNoFIFO
	}
	widen(fd)
	return fd, nil
}

var errNoFIFO = errorString("is no FIFO; remove it and make one with mkfifo(1)")

type errorString string

func (e errorString) Error() string { return string(e) }

// drain takes from a FIFO until another has its name, and it is empty.
func (p *Pipe) drain(ctx context.Context, w *waiter, fd int) error {
	p.quiet = time.Now()
	looked := time.Now()
	for {
		ready, err := w.wait(ctx, fd, p.opt.Poll)
		if err != nil {
			return err
		}
		took := false
		if ready {
			if took, err = p.take(ctx, fd); err != nil {
				return err
			}
		}
		switch {
		case took:
			p.quiet = time.Now()
		case ready: // a line without its end; poll(2) would return at once
			if _, err := w.wait(ctx, -1, partialPause); err != nil {
				return err
			}
		}
		if !p.quiet.IsZero() && time.Since(p.quiet) > p.opt.Silent {
			p.quiet = time.Time{}
			p.log.Warn("nobody writes to the FIFO", "file", p.path, "for", p.opt.Silent)
		}
		if time.Since(looked) >= p.opt.Poll {
			looked = time.Now()
			if !took && !p.still(fd) {
				return nil
			}
		}
	}
}

// partialPause is how long the end of a line is waited for before the pipe is
// looked at again.
const partialPause = 10 * time.Millisecond

// still tells whether the FIFO has its name, or nothing has: a writer may
// still hold one that was removed.
func (p *Pipe) still(fd int) bool {
	var has, is unix.Stat_t
	if err := unix.Stat(p.path, &has); err != nil {
		p.say(err)
		return p.opt.Make == 0
	}
	return unix.Fstat(fd, &is) == nil && has.Dev == is.Dev && has.Ino == is.Ino
}

// runInput takes from an open file to its end.
func (p *Pipe) runInput(ctx context.Context, w *waiter) error {
	fi, err := p.file.Stat()
	if err != nil {
		return ioError(p.file.Name(), err)
	}
	fd := int(p.file.Fd())
	if fi.Mode().Type() != fs.ModeNamedPipe {
		return p.plain(ctx, w, fd)
	}
	widen(fd)
	for {
		if _, err := w.wait(ctx, fd, -1); err != nil {
			return err
		}
		took, err := p.take(ctx, fd)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if !took {
			if _, err := w.wait(ctx, -1, partialPause); err != nil {
				return err
			}
		}
	}
}

// peek copies what is in a pipe to the buffer and leaves it there. It returns
// io.EOF if there is nothing and never will be.
func (p *Pipe) peek(fd int) ([]byte, error) {
	n, err := unix.Tee(fd, p.tee[1], len(p.buf), unix.SPLICE_F_NONBLOCK)
	if err == unix.EAGAIN || err == unix.EINTR {
		return nil, nil
	}
	if err != nil {
		return nil, ioError(p.name(), err)
	}
	if n == 0 {
		return nil, io.EOF
	}
	for at := 0; at < int(n); {
		k, err := readFD(p.tee[0], p.buf[at:n])
		if err != nil {
			return nil, ioError(p.name(), err)
		}
		at += k
	}
	return p.buf[:n], nil
}

func (p *Pipe) name() string { return orElse(p.path, "standard input") }

// consume reads bytes out of a pipe that were looked at.
func (p *Pipe) consume(fd, n int) error {
	for n > 0 {
		k, err := readFD(fd, p.buf[:n])
		if err != nil {
			return ioError(p.name(), err)
		}
		n -= k
	}
	return nil
}

// take hands on the lines that are in a pipe and reads them out of it. It
// returns false if there is nothing but a line without its end.
func (p *Pipe) take(ctx context.Context, fd int) (bool, error) {
	b, err := p.peek(fd)
	if err == io.EOF || len(b) == 0 {
		return false, err
	}
	if n := p.last.n; n > 0 { // the first look: is it what is handed on already
		if p.last.n = 0; len(b) >= n && sha256.Sum256(b[:n]) == p.last.sum {
			return true, p.consume(fd, n)
		}
	}
	if p.skip {
		return true, p.skipTo(ctx, fd, b)
	}
	if whole := bytes.LastIndexByte(b, '\n') + 1; whole > 0 {
		return true, p.put(ctx, fd, b[:whole], nil)
	}
	if len(b) <= MaxLine {
		if p.looked != nil {
			p.looked()
		}
		ended, full := pipeEnd(fd)
		if !ended && !full {
			return false, nil
		}
		// The rest may have been written between the look and the question.
		if now, err := p.peek(fd); err != nil || len(now) > len(b) {
			return true, err
		}
		if ended { // nobody will write the rest
			p.count.torn.Add(1)
			return true, p.put(ctx, fd, b, newline)
		}
	}
	p.skip = true
	p.count.cut.Add(1)
	return true, p.put(ctx, fd, b[:min(len(b), MaxLine)], newline)
}

// pipeEnd tells whether a pipe has no writer left, or no room.
func pipeEnd(fd int) (ended, full bool) {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLOUT}}
	if _, err := unix.Poll(fds[:], 0); err != nil {
		return false, false
	}
	if fds[0].Revents&unix.POLLHUP != 0 {
		return true, false
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	return false, err == nil && flags&unix.O_ACCMODE == unix.O_RDWR && fds[0].Revents&unix.POLLOUT == 0
}

// skipTo reads the rest of a line too long out of the pipe. That it has ended
// is put to the sink before: else a restart would skip the next line.
func (p *Pipe) skipTo(ctx context.Context, fd int, b []byte) error {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		return p.consume(fd, len(b))
	}
	p.skip = false
	return p.putState(ctx, fd, i+1, sha256.Sum256(b[:i+1]), nil)
}

// put hands on lines, which stand at the front of the pipe but for what is
// missing at their end, and reads them out of it.
func (p *Pipe) put(ctx context.Context, fd int, b, end []byte) error {
	n, sum := len(b), sha256.Sum256(b)
	b, cut := tidy(append(b, end...))
	p.count.cut.Add(cut)
	if err := p.putState(ctx, fd, n, sum, b); err != nil {
		return err
	}
	p.count.add(b)
	return nil
}

// putState hands on lines, and that n bytes are to be read out of the pipe,
// and reads them.
func (p *Pipe) putState(ctx context.Context, fd, n int, sum [sha256.Size]byte, lines []byte) error {
	st := pipeState{p.skip, n, sum}
	st.put(&p.state)
	p.chunk = Chunk{Key: p.key, State: p.state[:], Lines: lines}
	if err := p.sink.Put(ctx, &p.chunk); err != nil {
		return err
	}
	return p.consume(fd, n)
}
