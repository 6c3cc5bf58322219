package spool

import (
	"context"
	"io"
	"os"
	"sort"

	"github.com/rolmail/rolmail/lib/sysexits"
)

// readAhead is how much is read at once, bytes; a block is never longer.
const readAhead = 1 << 20

// Block is a chunk as it was put: valid until the reader's next call.
type Block struct {
	Key      string
	Lines    []byte // whole lines; may be none
	From, To int64  // To is the position behind it
}

// Reader reads the spool from a position on. It belongs to one goroutine.
type Reader struct {
	s     *Spool
	pos   int64
	f     *os.File
	seg   segment // the one that f is of
	buf   []byte
	r, w  int // buf[r:w] is what stands at pos
	block Block
	keys  map[string]string
}

// NewReader reads from an offset: Begin, or the To of a block.
func (s *Spool) NewReader(from int64) (*Reader, error) {
	s.mu.Lock()
	begin, end := s.segs[0].base, s.end()
	s.mu.Unlock()
	switch {
	case from < begin:
		return nil, sysexits.Errorf(sysexits.Data, "%w: it begins at %d, %d bytes later", ErrGone, begin, begin-from)
	case from > end:
		return nil, sysexits.Errorf(sysexits.Data, "%w: at %d, %d bytes before", ErrAhead, end, from-end)
	}
	return &Reader{s: s, pos: from, buf: make([]byte, readAhead), keys: map[string]string{}}, nil
}

// Close closes the reader.
func (r *Reader) Close() {
	if r.f != nil {
		r.f.Close()
		r.f = nil
	}
}

// Ready reports whether there is a block, or something else to say.
func (r *Reader) Ready() bool {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	return r.pos != r.s.end() || r.s.closed || r.s.failed != nil
}

// Wake returns a channel that is closed when there is a block.
func (r *Reader) Wake() <-chan struct{} {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if r.pos != r.s.end() || r.s.closed {
		return alreadyAwake
	}
	r.s.asleep = true
	return r.s.wake
}

var alreadyAwake = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// Next waits for the next block.
func (r *Reader) Next(ctx context.Context) (*Block, error) {
	for {
		b, err := r.TryNext()
		if b != nil || err != nil {
			return b, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-r.Wake():
		}
	}
}

// TryNext returns the next block, nil if there is none yet.
func (r *Reader) TryNext() (*Block, error) {
	for {
		if r.r == r.w {
			more, err := r.fill(1)
			if err != nil || !more {
				return nil, err
			}
		}
		x, need, ok := parseBlock(r.buf[r.r:r.w])
		if need > r.w-r.r {
			more, err := r.fill(need)
			if err != nil {
				return nil, err
			}
			if more {
				continue
			}
			need = 0 // the segment ends within it
		}
		if !ok && need == 0 {
			if err := r.resync(); err != nil {
				return nil, err
			}
			continue
		}
		from := r.pos
		r.r += x.size
		r.pos += int64(x.size)
		if x.typ == stateOnly {
			continue
		}
		r.block = Block{Key: r.key(x.key), Lines: x.lines, From: from, To: r.pos}
		return &r.block, nil
	}
}

// key makes a string of a key, once for each.
func (r *Reader) key(b []byte) string {
	k, ok := r.keys[string(b)]
	if !ok {
		if len(r.keys) >= maxKeys {
			clear(r.keys)
		}
		k = string(b)
		r.keys[k] = k
	}
	return k
}

// fill reads until at least need bytes stand at pos. more is false at the end
// of the spool, or of the segment if something stands at pos already.
func (r *Reader) fill(need int) (more bool, err error) {
	for {
		if ok, err := r.find(); err != nil || !ok {
			return false, err
		}
		left := r.seg.end - r.pos - int64(r.w-r.r)
		if left > 0 {
			break
		}
		if r.w > r.r || r.pos < r.seg.end {
			return false, nil // the segment is over, in the middle of a block
		}
	}
	r.w = copy(r.buf, r.buf[r.r:r.w])
	r.r = 0
	for r.w < need {
		room := r.buf[r.w:min(int64(len(r.buf)), int64(r.w)+r.seg.end-r.pos-int64(r.w))]
		if len(room) == 0 {
			return false, nil
		}
		n, err := r.f.ReadAt(room, r.pos-r.seg.base+int64(r.w))
		r.w += n
		if err != nil && (err != io.EOF || n == 0) {
			return false, fail(r.f.Name(), sysexits.IO, err)
		}
	}
	return true, nil
}

// find goes to the segment of pos. ok is false at the end of the spool.
func (r *Reader) find() (ok bool, err error) {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return false, err
	}
	i := sort.Search(len(s.segs), func(i int) bool { return s.segs[i].base > r.pos }) - 1
	if i < 0 {
		return false, sysexits.Errorf(sysexits.Data, "%w: it begins %d bytes later", ErrGone, s.segs[0].base-r.pos)
	}
	if r.pos >= s.segs[i].end {
		if i+1 == len(s.segs) {
			return false, nil
		}
		i++
		r.pos, r.r, r.w = s.segs[i].base, 0, 0
	}
	if r.f == nil || r.seg.base != s.segs[i].base {
		r.Close()
		if r.f, err = os.Open(s.path(s.segs[i].base)); err != nil {
			return false, fail(s.path(s.segs[i].base), sysexits.IO, err)
		}
		r.r, r.w = 0, 0
	}
	r.seg = s.segs[i]
	if r.pos < r.seg.base+headerLen {
		r.pos = r.seg.base + headerLen
	}
	return r.pos < r.seg.end || i+1 < len(s.segs), nil
}

// resync goes on behind damage: at the next whole block of the segment, or at
// its end.
func (r *Reader) resync() error {
	data := make([]byte, r.seg.end-r.pos)
	if _, err := r.f.ReadAt(data, r.pos-r.seg.base); err != nil && err != io.EOF {
		return fail(r.f.Name(), sysexits.IO, err)
	}
	n := 1
	for ; n < len(data); n++ {
		if _, _, ok := parseBlock(data[n:]); ok {
			break
		}
	}
	r.s.mu.Lock()
	to := r.s.setAside(r.pos, data[:n])
	r.s.mu.Unlock()
	r.s.o.Log.Error("the spool is damaged; going on behind that", "file", r.f.Name(), "at", r.pos-r.seg.base,
		"bytes", n, "set_aside", to)
	r.pos += int64(n)
	r.r, r.w = 0, 0
	return nil
}

// Pos is where the reader is.
func (r *Reader) Pos() int64 { return r.pos }
