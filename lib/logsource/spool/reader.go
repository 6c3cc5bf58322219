package spool

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/rolmail/rolmail/lib/sysexits"
)

// maxKeys bounds the names of sources that a Reader keeps, so that a name is
// not allocated a block.
const maxKeys = 4096

// Block is a chunk that was put.
type Block struct {
	Key   string // of the source
	Lines []byte // whole lines, each with its newline; none, where only the state has changed

	// From and To are where it begins and ends. From is behind the last
	// block's To where something is damaged, or the spool has skipped.
	From, To int64
}

// Reader gives out the blocks of a spool in order. It is used by one goroutine
// at a time.
//
// An engine takes blocks by TryNext while there are any. When there are none it
// selects on Ready, or calls Wait with the time after which it has other things
// to do.
type Reader struct {
	s     *Spool
	c     cursor
	file  *os.File
	path  string
	pos   int64
	wake  chan struct{} // a token: something was put, or everything has ended
	timer *time.Timer
	keys  map[string]string
	block Block
}

// NewReader makes a Reader that begins at an offset, which was the To of a
// Block, Begin or End. ErrGone and ErrAhead say that there is no such place.
func (s *Spool) NewReader(from int64) (*Reader, error) {
	r := &Reader{s: s, pos: from, wake: make(chan struct{}, 1), keys: map[string]string{}}
	r.c.seed = s.seed
	if _, err := r.more(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readers = append(s.readers, r)
	return r, nil
}

// Close gives the Reader's file free.
func (r *Reader) Close() error {
	r.s.mu.Lock()
	r.s.readers = slices.DeleteFunc(r.s.readers, func(o *Reader) bool { return o == r })
	r.s.mu.Unlock()
	return r.file.Close()
}

func (r *Reader) poke() { token(r.wake) }

// Pos is where the next block begins, or will.
func (r *Reader) Pos() int64 { return r.pos }

// Ready has a token when something was put after TryNext found nothing. It may
// have one for nothing.
func (r *Reader) Ready() <-chan struct{} { return r.wake }

// TryNext returns the next block, nil when there is none now. The block is
// valid until the next call.
func (r *Reader) TryNext() (*Block, error) {
	for {
		b, err := r.c.next()
		switch {
		case err == errDamaged:
			err = r.stepOver()
		case b != nil:
			return r.give(b), nil
		case err == nil:
			var more bool
			if more, err = r.more(); err == nil && !more {
				return nil, nil
			}
		}
		if err != nil {
			return nil, err
		}
	}
}

// Next waits for the next block. The block is valid until the next call.
func (r *Reader) Next(ctx context.Context) (*Block, error) {
	for {
		if b, err := r.TryNext(); b != nil || err != nil {
			return b, err
		}
		select {
		case <-r.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Wait waits for a block, but no longer than d. It returns true as soon as
// there is one.
func (r *Reader) Wait(ctx context.Context, d time.Duration) (bool, error) {
	if r.timer == nil {
		r.timer = time.NewTimer(d)
	} else {
		r.timer.Reset(d)
	}
	defer r.timer.Stop()
	for {
		if r.pos < r.s.End() {
			return true, nil
		}
		if err := r.s.why(); err != nil {
			return false, err
		}
		select {
		case <-r.wake:
		case <-r.timer.C:
			return r.pos < r.s.End(), nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// give makes a Block of a whole block that was passed.
func (r *Reader) give(b []byte) *Block {
	key, _, lines := parts(b)
	name, known := r.keys[string(key)]
	if !known {
		if len(r.keys) >= maxKeys {
			clear(r.keys)
		}
		name = string(key)
		r.keys[name] = name
	}
	to := r.pos + int64(len(b))
	r.block = Block{Key: name, Lines: lines, From: r.pos, To: to}
	r.pos = to
	return &r.block
}

// stepOver goes on behind damage.
func (r *Reader) stepOver() error {
	from := r.c.at
	if err := r.c.resync(); err != nil {
		return err
	}
	r.pos = r.c.offset()
	r.s.setAside(r.file, r.path, from, r.c.at, "a part of the spool is damaged; its lines are lost")
	return nil
}

// more looks for what was put behind what is known: more of the segment, or
// the next one.
func (r *Reader) more() (bool, error) {
	seg, err := r.s.look(r.pos)
	if err != nil {
		return false, err
	}
	if seg.path == r.path {
		grown := seg.size() > r.c.limit
		if grown {
			r.c.limit, r.c.eof = seg.size(), false
		}
		return grown, nil
	}
	f, err := os.Open(seg.path)
	if errors.Is(err, fs.ErrNotExist) { // released, or removed by hand
		return false, r.s.gone(r.pos)
	}
	if err != nil {
		return false, sysexits.Wrap(sysexits.IO, err)
	}
	if r.file != nil {
		r.file.Close()
	}
	r.pos = max(r.pos, seg.base)
	r.file, r.path = f, seg.path
	r.c.place(f, seg.base, seg.head, seg.head+r.pos-seg.base, seg.size())
	return true, nil
}

// look is the segment that has the block at an offset, or will have it.
func (s *Spool) look(offset int64) (segment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return segment{}, s.err
	}
	last := len(s.segments) - 1
	if offset > s.segments[last].end {
		return segment{}, s.offsetError(offset, ErrAhead)
	}
	if offset < s.segments[0].prev {
		return segment{}, s.offsetError(offset, ErrGone)
	}
	i := 0
	for i < last && offset >= s.segments[i].end {
		i++
	}
	return s.segments[i], nil
}

func (s *Spool) gone(offset int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.offsetError(offset, ErrGone)
}

func (s *Spool) offsetError(offset int64, err error) error {
	return sysexits.Wrap(sysexits.Data, &OffsetError{offset, s.segments[0].base, s.segments[len(s.segments)-1].end, err})
}
