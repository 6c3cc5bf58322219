// Package spool keeps log lines on the disk from the moment they are
// acknowledged until every database has them.
//
// # What it holds
//
// A directory of segments, files named by the logical offset of their first
// byte (16 hexadecimal digits, then ".seg"). Offsets count all bytes ever
// written, headers included, and never go back, so that a database's position
// is one number. A segment is a header and blocks; see format.go. A block is a
// chunk of package logsource: lines of one source and the source's state
// behind them, under one checksum, so that neither is ever there without the
// other. The first block of each segment is the table of all sources' states:
// the last segment alone says where every source goes on, and is never
// released.
//
// # What bounds it
//
// MaxBytes for all segments together. Put waits while there is no room, for
// that bound or because the disk is full, until Release makes some. Nothing
// else waits.
//
// # What survives what
//
// Put returns after write(2): from then on the chunk survives the death of the
// process. Files are synced 50 ms later at the latest, all chunks of that time
// together, and at once by SyncTo, which a database's commit must call before
// it makes a position behind the chunk its own: so a power failure can make
// the spool end before what was acknowledged to a source, by 50 ms, but never
// before what a database has. With SyncEach Put itself returns after the sync.
//
// A failed fsync(2) is final. The kernel may have dropped the pages that it
// could not write, and says so only once (LWN, "PostgreSQL's fsync() surprise",
// 2018): everything fails from then on, and the process should end; what the
// disk has is what counts after the restart.
//
// # What happens on restart
//
// The last segment is read block by block. What is behind the last whole block
// was being written when the process died: it is set aside in a file beside
// it, named in a warning, and cut off. Damage in an older segment is found by
// the reader: it goes on at the next block that is whole, and what lies
// between is set aside, too. One process at a time uses a spool.
package spool

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rolmail/rolmail/lib/logsource"
	"github.com/rolmail/rolmail/lib/safeio"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// Defaults.
const (
	defaultBytes   = 2 << 30
	defaultSegment = 64 << 20
	defaultSync    = 50 * time.Millisecond
	lockWait       = 10 * time.Second // for the process before to end
	roomRetry      = 200 * time.Millisecond
	maxKeys        = 1000 // sources with a state
)

// Options say where and how. Zero values get the defaults.
type Options struct {
	Dir          string
	MaxBytes     int64         // of all segments: 2 GiB
	SegmentBytes int64         // of one: 64 MiB, or a sixteenth of MaxBytes
	SyncEvery    time.Duration // 50 ms
	SyncEach     bool          // Put returns after the sync
	LockWait     time.Duration // 10 s
	Log          *slog.Logger
}

func (o *Options) defaults() {
	if o.MaxBytes == 0 {
		o.MaxBytes = defaultBytes
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = min(defaultSegment, o.MaxBytes/16)
	}
	o.SegmentBytes = max(o.SegmentBytes, 4096)
	if o.SyncEvery == 0 {
		o.SyncEvery = defaultSync
	}
	if o.LockWait == 0 {
		o.LockWait = lockWait
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Errors.
var (
	// ErrFailed is in every error after a sync that failed.
	ErrFailed = errors.New("the spool could not be synced to the disk")
	// ErrGone is for lines that were released already.
	ErrGone = errors.New("the spool does not have these lines any more")
	// ErrAhead is for a position behind the spool's end.
	ErrAhead = errors.New("the spool ends before this position")

	errClosed = errors.New("the spool is closed")
)

// segment is one file.
type segment struct {
	base int64 // logical offset of its first byte
	end  int64 // and behind its last whole block
}

// Spool is an open spool. All methods may be called by several goroutines.
type Spool struct {
	o    Options
	id   [16]byte
	lock *os.File

	mu      sync.Mutex
	segs    []segment // ascending; the last is the active one
	file    *os.File  // the active one
	buf     []byte    // the block being written
	states  map[string][]byte
	torn    bool // the active segment has bytes behind end that could not be cut off
	failed  error
	closed  bool
	waiting time.Time // Puts wait for room since then
	why     string
	room    chan struct{} // closed and made anew when there may be room
	wake    chan struct{} // closed and made anew when there is a new block,
	asleep  bool          // if somebody waits for it
	aside   int64
	synced  int64

	syncMu   sync.Mutex // held while syncing
	syncs    int64
	syncTime time.Duration
	stop     chan struct{}
	dirty    chan struct{}
	syncer   sync.WaitGroup
}

// Open opens a spool, making its directory if need be.
func Open(o Options) (*Spool, error) {
	o.defaults()
	if err := os.MkdirAll(o.Dir, 0o750); err != nil {
		return nil, fail(o.Dir, sysexits.CannotMake, err)
	}
	s := &Spool{
		o: o, states: map[string][]byte{}, room: make(chan struct{}), wake: make(chan struct{}),
		stop: make(chan struct{}), dirty: make(chan struct{}, 1),
	}
	if err := s.takeLock(); err != nil {
		return nil, err
	}
	if err := s.recover(); err != nil {
		s.lock.Close()
		return nil, err
	}
	s.synced = s.end()
	s.syncer.Add(1)
	go s.syncNowAndThen()
	return s, nil
}

func fail(path string, status int, err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		path, err = pe.Path, pe.Err
	}
	if errors.Is(err, os.ErrPermission) {
		status = sysexits.NoPerm
	}
	return sysexits.Errorf(status, "spool %s: %w", path, err)
}

// takeLock waits a little for the process before, which may still be ending.
func (s *Spool) takeLock() error {
	path := filepath.Join(s.o.Dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return fail(path, sysexits.CannotMake, err)
	}
	for deadline := time.Now().Add(s.o.LockWait); ; time.Sleep(20 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			s.lock = f
			return nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			f.Close()
			return fail(path, sysexits.IO, err)
		}
		if time.Now().After(deadline) {
			f.Close()
			return sysexits.Errorf(sysexits.TryAgain,
				"spool %s: another rol-logpipe uses it; end that one, or name another directory by --spool", s.o.Dir)
		}
	}
}

// Dir is the spool's directory.
func (s *Spool) Dir() string { return s.o.Dir }

// ID is made with the spool: offsets of another one mean nothing here.
func (s *Spool) ID() [16]byte { return s.id }

// Begin is the offset of the oldest line that is there.
func (s *Spool) Begin() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.segs[0].base
}

// End is the offset behind the newest.
func (s *Spool) End() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end()
}

func (s *Spool) end() int64 { return s.segs[len(s.segs)-1].end }

// State is the state of the last chunk with this key.
func (s *Spool) State(key string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.states[key]
}

// Put writes a chunk. See logsource.Sink.
func (s *Spool) Put(ctx context.Context, c *logsource.Chunk) error {
	if err := checkChunk(c); err != nil {
		return err
	}
	end, err := s.put(ctx, c)
	if err == nil && s.o.SyncEach {
		err = s.SyncTo(end)
	}
	return err
}

func checkChunk(c *logsource.Chunk) error {
	n := len(c.Lines)
	switch {
	case len(c.Key) == 0 || len(c.Key) > logsource.MaxKey, len(c.State) > logsource.MaxState, n > logsource.MaxChunk,
		n > 0 && c.Lines[n-1] != '\n':
		return sysexits.Errorf(sysexits.Bug, "spool: a chunk of key %.40q with %d bytes of state and %d of lines", c.Key, len(c.State), n)
	}
	return nil
}

// put writes a chunk, when there is room.
func (s *Spool) put(ctx context.Context, c *logsource.Chunk) (end int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if err := s.usable(); err != nil {
			return 0, err
		}
		s.buf = appendChunk(s.buf[:0], c)
		why := s.write()
		if why == nil {
			break
		}
		if !noRoom(why) {
			return 0, fail(s.o.Dir, sysexits.IO, why)
		}
		if err := s.wait(ctx, why); err != nil {
			return 0, err
		}
	}
	if !s.waiting.IsZero() {
		s.o.Log.Info("the spool has room again", "waited", time.Since(s.waiting).Round(time.Second))
		s.waiting, s.why = time.Time{}, ""
	}
	if c.State != nil {
		s.keepState(c.Key, c.State)
	}
	select {
	case s.dirty <- struct{}{}:
	default:
	}
	if s.asleep {
		close(s.wake)
		s.wake, s.asleep = make(chan struct{}), false
	}
	return s.end(), nil
}

func (s *Spool) usable() error {
	if s.failed != nil {
		return s.failed
	}
	if s.closed {
		return sysexits.Wrap(sysexits.Unavailable, errClosed)
	}
	return nil
}

func (s *Spool) keepState(key string, state []byte) {
	if _, ok := s.states[key]; !ok && len(s.states) >= maxKeys {
		for old := range s.states { // any: so many sources are a mistake
			delete(s.states, old)
			break
		}
	}
	s.states[key] = append([]byte(nil), state...)
}

type boundError struct{ used, most int64 }

func (e boundError) Error() string {
	return fmt.Sprintf("%d MB are in use, and maillog_spool_size allows %d MB", e.used>>20, e.most>>20)
}

func noRoom(err error) bool {
	var b boundError
	return errors.As(err, &b) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// wait waits until there may be room. It gives the lock back meanwhile.
func (s *Spool) wait(ctx context.Context, why error) error {
	if s.waiting.IsZero() {
		s.waiting = time.Now()
		s.o.Log.Warn("the spool has no room: sources wait", "reason", why)
	}
	s.why = why.Error()
	room := s.room
	s.mu.Unlock()
	defer s.mu.Lock()
	t := time.NewTimer(roomRetry) // nobody tells when a disk has room again
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-room:
	case <-t.C:
	case <-s.stop:
	}
	return nil
}

// write writes s.buf as a block to the active segment, or to a new one. What
// could be written only in part is cut back.
func (s *Spool) write() error {
	active := &s.segs[len(s.segs)-1]
	if err := s.cutBack(); err != nil {
		return err
	}
	n := int64(len(s.buf))
	if n > s.o.MaxBytes/2 {
		return fmt.Errorf("a chunk of %d bytes is too much for a spool of %d", n, s.o.MaxBytes)
	}
	if used := s.bytes(); used+n > s.o.MaxBytes {
		return boundError{used, s.o.MaxBytes}
	}
	if active.end-active.base+n > s.o.SegmentBytes && active.end-active.base > s.o.SegmentBytes/2 {
		if err := s.next(active.end); err != nil {
			return err
		}
		active = &s.segs[len(s.segs)-1]
	}
	if _, err := s.file.WriteAt(s.buf, active.end-active.base); err != nil {
		s.torn = true
		return errors.Join(err, s.cutBack())
	}
	active.end += n
	return nil
}

// cutBack takes away what a failed write has left behind the end.
func (s *Spool) cutBack() error {
	if !s.torn {
		return nil
	}
	active := s.segs[len(s.segs)-1]
	if err := s.file.Truncate(active.end - active.base); err != nil {
		return err
	}
	s.torn = false
	return nil
}

func (s *Spool) bytes() (n int64) {
	for _, g := range s.segs {
		n += g.end - g.base
	}
	return n
}

func (s *Spool) path(base int64) string {
	return filepath.Join(s.o.Dir, fmt.Sprintf("%016x%s", base, suffix))
}

// next begins a new segment at base. Whatever fails, the old one stays the
// active one, and what was made of the new one is taken away, or is found to
// be empty by the next Open.
func (s *Spool) next(base int64) error {
	block := appendStates(appendHeader(nil, s.id, base), s.states)
	path := s.path(base)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(block, 0); err == nil && s.file != nil {
		err = s.file.Sync() // only the last segment may have a tail that is not synced
		s.noteSync(err)
	}
	if err == nil {
		err = f.Sync()
		s.noteSync(err)
	}
	if err == nil {
		err = safeio.SyncDir(s.o.Dir)
		s.noteSync(err)
	}
	if err != nil {
		f.Close()
		_ = os.Remove(path)
		if s.failed != nil {
			return s.failed
		}
		return err
	}
	if s.file != nil {
		s.file.Close()
	}
	s.file = f
	s.segs = append(s.segs, segment{base, base + int64(len(block))})
	s.synced = s.end()
	return nil
}

// noteSync makes the failure of a sync final.
func (s *Spool) noteSync(err error) {
	if err == nil || s.failed != nil || errors.Is(err, os.ErrClosed) {
		return
	}
	s.failed = sysexits.Errorf(sysexits.IO, "spool %s: %w: %w; what is on the disk counts after a restart", s.o.Dir, ErrFailed, err)
}

// Release says that nobody needs what is before to. Whole segments are
// removed, but never the active one.
func (s *Spool) Release(to int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var failed error
	for len(s.segs) > 1 && s.segs[0].end <= to {
		if err := os.Remove(s.path(s.segs[0].base)); err != nil && !errors.Is(err, os.ErrNotExist) {
			failed = err
			break
		}
		s.segs = s.segs[1:]
		close(s.room)
		s.room = make(chan struct{})
	}
	return failed
}

// Skip makes the spool go on at an offset that is not before to: a database
// is there already. Lines that it has read must not stand before new ones.
func (s *Spool) Skip(to int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil || to <= s.end() {
		return err
	}
	if err := s.next(to); err != nil {
		return fail(s.o.Dir, sysexits.IO, err)
	}
	return nil
}

// SyncTo returns when all before an offset is on the disk.
func (s *Spool) SyncTo(offset int64) error {
	s.mu.Lock()
	done, err := s.synced >= offset, s.failed
	s.mu.Unlock()
	if done || err != nil {
		return err
	}
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	s.mu.Lock()
	f, end, base := s.file, s.end(), s.segs[len(s.segs)-1].base
	done, err = s.synced >= offset, s.failed
	s.mu.Unlock()
	if done || err != nil {
		return err
	}
	begun := time.Now()
	err = unix.Fdatasync(int(f.Fd()))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.segs[len(s.segs)-1].base != base {
		return s.failed // another segment was begun, which has synced this one
	}
	if err != nil {
		s.noteSync(err)
		return s.failed
	}
	s.syncs++
	s.syncTime += time.Since(begun)
	s.synced = max(s.synced, end)
	return nil
}

func (s *Spool) syncNowAndThen() {
	defer s.syncer.Done()
	t := time.NewTimer(s.o.SyncEvery)
	defer t.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-s.dirty:
		}
		t.Reset(s.o.SyncEvery)
		select {
		case <-s.stop:
			return
		case <-t.C:
		}
		if err := s.SyncTo(s.End()); err != nil {
			s.o.Log.Error("the spool fails", "reason", err)
			return
		}
	}
}

// Close syncs and closes. Puts that wait end with an error.
func (s *Spool) Close() error {
	err := s.SyncTo(s.End())
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.stop)
	close(s.wake)
	s.wake = make(chan struct{})
	s.mu.Unlock()
	s.syncer.Wait()
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(err, s.file.Close(), s.lock.Close())
}

// Stats is how a spool is.
type Stats struct {
	Bytes, Begin, End, Synced int64
	Segments                  int
	Syncs                     int64
	SyncTime                  time.Duration
	WaitingSince              time.Time // by the wall clock; zero: nobody waits
	WaitingFor                string
	SetAside                  int64 // damaged pieces found since Open
}

// Stats returns them.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{
		Bytes: s.bytes(), Begin: s.segs[0].base, End: s.end(), Synced: s.synced, Segments: len(s.segs),
		Syncs: s.syncs, SyncTime: s.syncTime, WaitingSince: s.waiting, WaitingFor: s.why, SetAside: s.aside,
	}
}

// newID makes an id.
func newID() (id [16]byte) {
	_, _ = rand.Read(id[:]) // it never fails: crypto/rand
	return id
}
