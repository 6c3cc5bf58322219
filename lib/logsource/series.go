package logsource

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// series is a log that is followed: all that stands under one name, one
// rotation after another.
type series struct {
	f       *Follow
	path    string
	key     string
	literal bool // was named, not found by a glob

	bodies []*body // held open, oldest first
	lost   []ident // what a former run held, and nobody has found yet
	done   []ident // read to the end and let go, newest first
	first  bool    // no former run knows of it
	looked bool
	seen   int64 // the newest change of a sibling at the last look at them

	refilled []inode // what was truncated and may have other content since

	said  complaint // what was said of the name last
	since time.Time // that it is away
	long  bool      // and that was said

	count     counters     // lines and bytes of it
	size, off atomic.Int64 // of all bodies, for Stats
	held      atomic.Int64
	away      atomic.Bool
}

type inode struct{ dev, ino uint64 }

func keyOf(path string) string {
	key := "file:" + path
	if len(key) <= MaxKey {
		return key
	}
	sum := sha256.Sum256([]byte(path))
	return key[:MaxKey-65] + "#" + hex.EncodeToString(sum[:])
}

func newSeries(f *Follow, path string, literal bool) (*series, error) {
	s := &series{f: f, path: path, key: keyOf(path), literal: literal}
	state := f.sink.State(s.key)
	ids, err := readIdents(state)
	if err != nil {
		return nil, stateError(s.key, err)
	}
	for _, id := range ids {
		if id.done {
			s.done = append(s.done, id)
		} else {
			s.lost = append(s.lost, id)
		}
	}
	if s.first = len(ids) == 0; s.first {
		for _, m := range f.opt.Resume {
			if m.PrefixLen > 0 && m.PrefixLen <= HeadLen && m.Offset > 0 {
				s.lost = append(s.lost, identOf(m))
			}
		}
	}
	return s, nil
}

// look follows the log as far as it is written, or for a while if that is
// much; busy tells that there is more.
func (s *series) look(ctx context.Context) (busy bool, err error) {
	st, err := s.stat()
	if err == nil {
		id := inode{uint64(st.Dev), st.Ino}
		owner := s.f.owner[id]
		switch {
		case owner == nil:
			s.verify()
			err = s.find()
		case owner != s:
			s.say("twin", "is the same file as another that is followed; it is read once", "file", s.path, "other", owner.path)
		default:
			s.back()
		}
	} else if !s.looked && len(s.lost) > 0 && !s.first {
		err = s.find()
	}
	if err != nil {
		s.sayError(err)
	}
	if busy, err = s.drain(ctx); len(s.bodies) == 0 {
		busy = false
	}
	s.note()
	return busy, err
}

// stat looks what has the name.
func (s *series) stat() (st unix.Stat_t, err error) {
	if err = unix.Stat(s.path, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errNoFile
	}
	if err != nil {
		s.sayError(err)
	}
	return st, err
}

// sayError says what is wrong with the name, once.
func (s *series) sayError(err error) {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		s.say(err.Error(), "cannot follow a log; it is tried again", "file", s.path, "error", err)
		return
	}
	s.away.Store(true)
	if s.since.IsZero() {
		s.since = time.Now()
	}
	switch {
	case !s.looked && len(s.bodies) == 0:
		s.say("missing", "a log is not there; waiting for it", "file", s.path)
	case !s.long && time.Since(s.since) > s.f.opt.Away:
		s.long = true
		s.say("away", "a log is gone and does not come back; waiting for it", "file", s.path)
	}
}

// say says something of the name once.
func (s *series) say(what, msg string, args ...any) {
	if s.said.get() != what {
		s.said.set(what)
		s.f.log.Warn(msg, args...)
	}
}

// back notes that the name is well.
func (s *series) back() {
	s.since, s.long = time.Time{}, false
	s.away.Store(false)
	if s.said.get() != "" {
		s.said.set("")
		s.f.log.Info("following a log", "file", s.path)
	}
}

// hold takes the body of a sibling.
func (s *series) hold(c *sibling) error {
	if err := c.body.begin(c.from); err != nil {
		return err
	}
	c.body.skip = c.skip
	s.f.owner[inode{c.body.dev, c.body.ino}] = s
	return nil
}

// drop lets a body go.
func (s *series) drop(b *body) {
	delete(s.f.owner, inode{b.dev, b.ino})
	b.close()
	s.bodies = slices.DeleteFunc(s.bodies, func(x *body) bool { return x == b })
}

// drain reads the bodies, the oldest to its end before the next. Their sizes
// are taken beginning with the newest, and nothing is read behind them: what a
// writer wrote before it went on to the next file comes before what is there.
func (s *series) drain(ctx context.Context) (busy bool, err error) {
	for _, b := range slices.Backward(s.bodies) {
		if err := b.look(); err != nil {
			return false, err
		}
	}
	for _, b := range slices.Clone(s.bodies) {
		if !b.fresh {
			continue
		}
		busy, err = s.pull(ctx, b)
		if err == errTruncated {
			s.truncated(b)
			return true, nil
		}
		if err != nil || busy {
			return busy, err
		}
	}
	return false, s.retire(ctx)
}

// truncated looks for what a log was before it was truncated: copytruncate
// made a copy, in which the rest may stand that has not been read.
func (s *series) truncated(b *body) {
	s.lose(b)
	if err := s.find(); err != nil {
		s.sayError(err)
	}
}

// lose notes that what was read of a body is no longer in it.
func (s *series) lose(b *body) {
	s.f.count.truncated.Add(1)
	id := b.ident
	if id.off == 0 && len(b.first) > 0 {
		id.begins(b.first)
	}
	if id.headLen > 0 {
		s.lost = append(s.lost, id)
	}
	s.drop(b)
	s.refilled = append(s.refilled, inode{b.dev, b.ino})
}

// verify finds what was truncated before it was renamed.
func (s *series) verify() {
	for _, b := range slices.Clone(s.bodies) {
		if b.src != nil || b.look() != nil || !b.fresh {
			continue
		}
		if _, err := b.read(s.f.buf); err == errTruncated {
			s.lose(b)
		}
	}
}

// patience is how many times longer an old log is held while it has a name: a
// program that does not open its log again may write to it now and then until
// the next rotation.
const patience = 30

// retire lets go of what nobody writes any more: its name is gone and it was
// silent for a while, or it was for a long while and the one after it has
// grown. Of more than maxOld the oldest goes at once.
func (s *series) retire(ctx context.Context) error {
	for i := 0; i < len(s.bodies); i++ {
		b := s.bodies[i]
		last := i == len(s.bodies)-1
		idle := time.Since(b.changed)
		grown := slices.ContainsFunc(s.bodies[i+1:], func(x *body) bool { return x.off > 0 })
		gone := b.stat.Nlink == 0
		switch {
		case b.src != nil && !b.fresh:
		case gone && idle >= s.f.opt.Idle, grown && idle >= patience*s.f.opt.Idle:
		case !last && len(s.bodies) > maxOld:
			if idle < s.f.opt.Idle {
				s.f.log.Warn("too many old logs are still written to; letting go of the oldest", "file", b.name)
			}
		default:
			continue
		}
		if err := s.finish(ctx, b); err != nil {
			return err
		}
		if b.done {
			i--
		}
	}
	return nil
}

// finish gives out what stands behind the last newline, which nobody will
// write on, and remembers that the log was read.
func (s *series) finish(ctx context.Context, b *body) error {
	b.done = true
	if b.src == nil && !b.skip {
		p, err := b.read(s.f.buf)
		if err != nil && err != errTruncated {
			return err
		}
		if bytes.IndexByte(p, '\n') >= 0 || len(p) > MaxLine { // it has grown
			b.fresh, b.done = true, false
			return nil
		}
		if rest := bytes.TrimLeft(p, "\x00"); len(rest) > 0 {
			b.advance(p)
			s.f.count.torn.Add(1)
			if err := s.put(ctx, append(rest, '\n')); err != nil {
				return err
			}
		}
	}
	s.drop(b)
	s.remember(b.ident)
	return nil
}

// remember notes a log that is read no more, so that it is known again.
func (s *series) remember(id ident) {
	if id.done = true; id.off > 0 {
		s.done = slices.Insert(s.done, 0, id)
		s.done = s.done[:min(len(s.done), maxDone)]
	}
}

// put hands lines on with the state behind them.
func (s *series) put(ctx context.Context, lines []byte) error {
	f := s.f
	f.state = append(f.state[:0], stateVersion)
	n := 0
	for _, b := range slices.Backward(s.bodies) {
		if b.off > 0 && n < maxHeld {
			f.state = appendIdent(f.state, &b.ident)
			n++
		}
	}
	for i := range s.lost {
		if n < maxHeld {
			f.state = appendIdent(f.state, &s.lost[i])
			n++
		}
	}
	for i := range s.done {
		f.state = appendIdent(f.state, &s.done[i])
	}
	f.chunk = Chunk{Key: s.key, State: f.state, Lines: lines}
	if err := f.sink.Put(ctx, &f.chunk); err != nil {
		return err
	}
	f.count.add(lines)
	s.count.add(lines)
	return nil
}

// note keeps what Stats tells.
func (s *series) note() {
	var size, off int64
	for _, b := range s.bodies {
		if b.src == nil {
			size += b.size()
			off += b.off
		}
	}
	s.size.Store(size)
	s.off.Store(off)
	s.held.Store(int64(len(s.bodies)))
}

// close lets all go.
func (s *series) close() {
	for _, b := range s.bodies {
		b.close()
	}
}
