package logsource

import (
	"bytes"
	"context"
	"io"
)

// burst is how many chunks of a log are read before the others are looked at.
const burst = 16

// pull reads a body as far as there are whole lines; more tells that there is
// more than a burst.
func (s *series) pull(ctx context.Context, b *body) (more bool, err error) {
	for range burst {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if b.src == nil && b.off == 0 && b.stat.Size > 0 && !b.checked && len(b.first) == 0 {
			return true, s.check(b)
		}
		if b.src != nil {
			more, err = s.pullPacked(ctx, b)
		} else {
			more, err = s.pullPlain(ctx, b)
		}
		if err != nil || !more {
			return false, err
		}
	}
	return true, nil
}

// check looks at a log that was empty when it was opened and now is not. It may
// have been truncated in between, and what it had then is in a copy.
func (s *series) check(b *body) error {
	b.checked = true
	if err := b.peek(); err != nil {
		return err
	}
	return s.find()
}

// pullPlain reads once. The last line waits for its newline, unless it is too
// long already.
func (s *series) pullPlain(ctx context.Context, b *body) (more bool, err error) {
	p, err := b.read(s.f.buf)
	if err != nil {
		return false, err
	}
	p = p[:max(min(int64(len(p)), b.size()-b.off), 0)]
	if b.skip {
		i := bytes.IndexByte(p, '\n')
		b.skip = i < 0
		if i < 0 {
			i = len(p) - 1
		}
		b.advance(p[:i+1])
		b.fresh = len(p) > 0
		return b.fresh, nil
	}
	whole := bytes.LastIndexByte(p, '\n') + 1
	if whole == 0 {
		b.fresh = false
		return s.pullLong(ctx, b, p)
	}
	b.advance(p[:whole])
	lines, cut := tidy(p[:whole])
	s.f.count.cut.Add(cut)
	return true, s.put(ctx, lines)
}

// pullLong gives out what is allowed of a line that has no end yet, and NULs
// that fill the buffer are passed over.
func (s *series) pullLong(ctx context.Context, b *body, p []byte) (more bool, err error) {
	text := bytes.TrimLeft(p, "\x00")
	if len(text) <= MaxLine {
		if len(p) > MaxLine { // a hole
			b.advance(p[:len(p)-len(text)])
			return true, nil
		}
		return false, nil
	}
	n := len(p) - len(text) + MaxLine
	b.skip = true
	b.advance(p[:n])
	s.f.count.cut.Add(1)
	return true, s.put(ctx, append(p[n-MaxLine:n:n], '\n'))
}

// pullPacked reads lines of compressed content. Nobody writes to that: the
// last line is given out as it is.
func (s *series) pullPacked(ctx context.Context, b *body) (more bool, err error) {
	out := s.f.buf[:0]
	cut := b.src.cut
	for len(out) < MaxChunk-MaxLine-1 {
		line, err := b.src.Next()
		if err != nil {
			if err != io.EOF {
				s.f.log.Error("a rotated log cannot be read to its end", "file", b.name, "error", err)
			}
			b.fresh, b.done = false, true
			break
		}
		if b.skip { // the rest of a line of which the beginning was given out
			b.skip = false
			continue
		}
		out = append(append(out, line...), '\n')
	}
	s.f.count.cut.Add(b.src.cut - cut)
	if len(out) == 0 {
		return false, nil
	}
	b.off = b.src.off
	b.begins(b.first[:min(int64(len(b.first)), b.off)])
	return b.fresh, s.put(ctx, out)
}
