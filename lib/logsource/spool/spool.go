// Package spool keeps log lines on disk between the sources that read them and
// the databases that want them. It is one total order of lines, and it outlives
// kill -9, power cuts and the outage of a database.
//
// A source puts chunks, lines and the state behind them, and each becomes one
// block, written by one write(2) with a checksum over all of it: what was read
// of the source and the lines cannot come apart. When Put has returned, the
// block survives the end of the process; within SyncEvery, or after SyncTo, a
// power cut too. Each database reads at its own pace by a Reader of its own and
// keeps how far it came, a logical offset, in its own transaction.
//
// # On disk
//
// The directory holds segments, named by the logical offset at which they
// begin (0000000000000000.seg); a spare file, room for the header of the next
// segment when the disk is full; lock, with the id of the process that has the
// spool; and *.damaged, what was set aside. Logical offsets count bytes of
// blocks from the first one ever written and never go back. A segment begins
// with a header that has the last state of every source, so the last segment
// alone says where the sources are; for this reason, that one is never
// released. A new segment is begun only after the one before is synced, so only
// the last can lack what was written.
//
// # Bounds
//
// All segments together have at most MaxBytes; Put waits while they have, until
// Release. It waits as well while the disk is full, and everything else goes
// on. The states have at most an eighth of that, and what is set aside another
// eighth. In memory there are a block, the states, and half a megabyte for each
// Reader.
//
// # What happens on restart
//
// One process has a spool at a time; the next one waits some seconds for it to
// end. The last segment is checked block by block. What is behind the last
// whole block, torn by a crash, is set aside into a file beside it, named in a
// warning, and cut off. Damage elsewhere is stepped over by the readers, who go
// on at the next block that checks out; it is set aside too, named and counted.
// A last segment that has no header is made anew. What is no spool, or one of a
// newer version, is refused.
//
// A failed fsync(2) is final: the kernel may have dropped what it could not
// write and say nothing the next time (https://lwn.net/Articles/752063/). All
// calls fail from then on and the process should end; what is on the disk when
// it starts again is what counts.
//
// The wall clock is not used.
package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rolmail/rolmail/lib/logsource"
	"github.com/rolmail/rolmail/lib/safeio"
	"github.com/rolmail/rolmail/lib/sysexits"
)

const (
	minBytes   = 1 << 20 // holds two segments of one block each, and their tables
	minSegment = 4 << 10
	maxSegment = 64 << 20
)

// Options say where a spool is and how it behaves. Zero values get defaults.
type Options struct {
	Dir          string
	MaxBytes     int64         // of all segments together; 2 GiB
	SegmentBytes int64         // of one; 64 MiB, but at most a sixteenth of MaxBytes and of the file system
	SyncEvery    time.Duration // the longest that what was put waits for its fsync; 50 ms
	SyncEach     bool          // Put returns after the fsync
	Beside       []string      // names of files that the caller keeps in Dir
	LockWait     time.Duration // how long to wait for another process to end; 5 s
	Log          *slog.Logger  // what an administrator should know; nil for nothing
}

var (
	// ErrAhead: an offset behind the end of the spool. The database is ahead,
	// because the spool has lost something: a restored disk, for one.
	ErrAhead = errors.New("the offset is behind the end of the spool")

	// ErrGone: an offset before the beginning of the spool. What was there has
	// been released.
	ErrGone = errors.New("the offset is before the beginning of the spool")

	// ErrClosed is what calls after Close return.
	ErrClosed = errors.New("the spool is closed")
)

// OffsetError is ErrAhead or ErrGone with the figures.
type OffsetError struct {
	Offset, Begin, End int64
	err                error
}

func (e *OffsetError) Error() string {
	return fmt.Sprintf("%v: offset %d, the spool has %d to %d", e.err, e.Offset, e.Begin, e.End)
}

// Unwrap returns ErrAhead or ErrGone.
func (e *OffsetError) Unwrap() error { return e.err }

// Spool is a logsource.Sink on disk. It is safe for concurrent use.
type Spool struct {
	opt  Options
	id   [16]byte
	seed uint32
	lock *os.File

	// turn is had by the one who writes: Put, Skip or Close. It is a channel
	// because who waits for it can be called off.
	turn  chan struct{}
	block []byte  // the block being written
	torn  bool    // the active segment has bytes behind its end
	wait  waiting // for room
	timer *time.Timer

	// syncing is held by the one who syncs; active changes with turn and
	// syncing held.
	syncing sync.Mutex
	active  *os.File
	spare   atomic.Int64  // bytes of room that the spare file has
	dirty   chan struct{} // a token: there is something to sync
	ended   chan struct{} // closed when nobody syncs any more

	reclaiming sync.Mutex // held by the one who removes segments

	done chan struct{} // closed at the end: Close, or an error that is final
	room chan struct{} // a token: something was released

	end    atomic.Int64 // the active segment's, for SyncTo
	synced atomic.Int64

	mu       sync.Mutex
	err      error     // why done is closed
	segments []segment // in order; the last is active
	bytes    int64     // of the segments' files
	released int64
	states   map[string][]byte
	table    int64 // bytes of the states in a header
	readers  []*Reader
	stats    Stats
	aside    int64           // bytes set aside
	met      map[string]bool // damaged places that are counted
}

var _ logsource.Sink = (*Spool)(nil)

// Stats is how a spool is doing.
type Stats struct {
	Bytes    int64 // of the segments' files
	MaxBytes int64
	Segments int
	Begin    int64 // logical offsets, as the methods of these names return
	End      int64
	Synced   int64 // everything before this offset is on the disk
	Released int64

	Puts     int64
	Syncs    int64
	SyncTime time.Duration // of all syncs
	SyncMax  time.Duration // of the longest

	Waiting  time.Duration // for how long Put has waited for room; 0: it does not
	Waits    int64         // how many times it had to
	WaitTime time.Duration // how long, those that are over
	DiskFull bool          // it waits for the disk, not for Release

	SetAside      int   // files *.damaged in the directory
	SetAsideBytes int64 // their bytes
	Damages       int   // damaged places met since Open, the torn end among them
}

func (o *Options) complete() error {
	if o.MaxBytes == 0 {
		o.MaxBytes = 2 << 30
	}
	if o.MaxBytes < minBytes {
		return sysexits.Errorf(sysexits.Config, "%s: %d bytes are too small for a spool; it needs %d", o.Dir, o.MaxBytes, minBytes)
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = min(maxSegment, o.MaxBytes/16)
		var fs unix.Statfs_t
		if unix.Statfs(o.Dir, &fs) == nil && fs.Blocks > 0 {
			o.SegmentBytes = max(minSegment, min(o.SegmentBytes, int64(fs.Blocks)*fs.Frsize/16))
		}
	}
	if o.SegmentBytes < minSegment || o.SegmentBytes > o.MaxBytes/4 {
		return sysexits.Errorf(sysexits.Config, "%s: a segment of %d bytes does not fit a spool of %d; it can have %d to a quarter of that",
			o.Dir, o.SegmentBytes, o.MaxBytes, minSegment)
	}
	if o.SyncEvery <= 0 {
		o.SyncEvery = 50 * time.Millisecond
	}
	if o.LockWait == 0 {
		o.LockWait = 5 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Open opens the spool in a directory, or makes one there.
func Open(o Options) (*Spool, error) {
	if err := makeDir(o.Dir); err != nil {
		return nil, err
	}
	if err := o.complete(); err != nil {
		return nil, err
	}
	lock, err := takeLock(&o)
	if err != nil {
		return nil, err
	}
	s := &Spool{
		opt: o, lock: lock,
		turn:  make(chan struct{}, 1),
		dirty: make(chan struct{}, 1), ended: make(chan struct{}),
		done: make(chan struct{}), room: make(chan struct{}, 1),
		states: map[string][]byte{}, met: map[string]bool{},
	}
	if err := s.load(); err != nil {
		if s.active != nil {
			s.active.Close()
		}
		lock.Close()
		return nil, err
	}
	go s.syncLoop()
	return s, nil
}

// makeDir makes the directory, if it is not there, and sees to it that it
// survives a power cut.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return sysexits.Wrap(sysexits.IO, err)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return sysexits.Wrap(sysexits.CannotMake, err)
	}
	return sysexits.Wrap(sysexits.IO, safeio.SyncDir(dir+"/.."))
}

// ID tells this spool from any other.
func (s *Spool) ID() [16]byte { return s.id }

// Begin is where the oldest block begins that is still there.
func (s *Spool) Begin() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.segments[0].base
}

// End is where the next block will begin.
func (s *Spool) End() int64 { return s.end.Load() }

// State is the state of the last chunk with this key, also from before a
// restart; nil if there is none.
func (s *Spool) State(key string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.states[key])
}

// Keys are the sources that have a state, in no order.
func (s *Spool) Keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := make([]string, 0, len(s.states))
	for key := range s.states {
		keys = append(keys, key)
	}
	return keys
}

// Stats is how the spool is doing.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Bytes, st.MaxBytes, st.Segments = s.bytes, s.opt.MaxBytes, len(s.segments)
	st.Begin, st.End, st.Synced, st.Released = s.segments[0].base, s.end.Load(), s.synced.Load(), s.released
	st.SetAsideBytes = s.aside
	if !s.wait.since.IsZero() {
		st.Waiting, st.DiskFull = time.Since(s.wait.since), s.wait.disk
	}
	return st
}

// Skip makes the spool go on at an offset, if it is not there yet: what was
// put before stays, and the next block begins at to or behind it. It is for a
// spool that has lost its end, so that offsets which a database has seen do
// not come again with other lines.
func (s *Spool) Skip(to int64) error {
	if err := s.take(context.Background()); err != nil {
		return err
	}
	defer s.give()
	if to <= s.End() {
		return nil
	}
	return s.rotate(to)
}

// Release tells that everything before an offset is done with: segments that
// end before it are removed.
func (s *Spool) Release(to int64) {
	s.mu.Lock()
	s.released = max(s.released, min(to, s.end.Load()))
	some := len(s.segments) > 1 && s.segments[0].end <= s.released || s.released == s.end.Load()
	s.mu.Unlock()
	if some {
		s.reclaim()
	}
}

// Close syncs what is there and gives the spool free. Calls that wait return
// ErrClosed.
func (s *Spool) Close() error {
	first := s.finish(ErrClosed)
	s.turn <- struct{}{} // whoever writes has been told
	defer s.give()
	<-s.ended
	s.syncing.Lock()
	defer s.syncing.Unlock()
	if s.active == nil {
		return nil
	}
	var err error
	if first {
		err = s.syncActive()
	} else {
		err = s.why()
	}
	s.active.Close()
	s.lock.Close()
	s.active = nil
	return err
}

// Failed is closed when all calls fail from then on, because the spool has
// failed for good or is closed. Who puts and reads nothing hears of it so.
func (s *Spool) Failed() <-chan struct{} { return s.done }

// Err is why all calls fail, nil as long as they do not.
func (s *Spool) Err() error { return s.why() }

// finish ends everything, for a reason. It returns false when that has
// happened before.
func (s *Spool) finish(why error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return false
	}
	s.err = why
	close(s.done)
	for _, r := range s.readers {
		r.poke()
	}
	return true
}

// why is the reason why everything has ended, nil as long as it has not.
func (s *Spool) why() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
