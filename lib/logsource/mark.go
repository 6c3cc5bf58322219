package logsource

import (
	"bytes"
	"crypto/sha256"
	"io"
)

// Mark is how far a log has been read. Offsets count bytes of the decompressed
// content.
type Mark struct {
	Prefix    [32]byte // SHA-256 of the first PrefixLen bytes
	PrefixLen int64    // HeadLen, or all there was at that time
	Offset    int64    // the beginning of the first line not read
}

// Mark is how far the source has been read: behind the line given out last if
// that has been used, else before it. ok is false when that is nowhere yet.
func (s *Source) Mark(used bool) (m Mark, ok bool) {
	at := s.before
	if used {
		at = s.after
	}
	m = Mark{s.sum(len(s.head)), int64(len(s.head)), max(at, s.floor)}
	return m, m.Offset > 0
}

// sum is the SHA-256 of the first n bytes of the content.
func (s *Source) sum(n int) [32]byte {
	h, ok := s.sums[n]
	if !ok {
		h = sha256.Sum256(s.head[:n])
		s.sums[n] = h
	}
	return h
}

// Resume skips what one of the marks says has been read, and returns how many
// bytes that are. It must come before the first Next, which tells what went
// wrong, if anything did.
func (s *Source) Resume(marks []Mark) int64 {
	var best Mark
	for _, m := range marks {
		if m.PrefixLen <= 0 || m.PrefixLen > int64(len(s.head)) || m.PrefixLen < best.PrefixLen {
			continue
		}
		if m.PrefixLen == best.PrefixLen && m.Offset <= best.Offset {
			continue
		}
		if s.sum(int(m.PrefixLen)) == m.Prefix {
			best = m
		}
	}
	return s.skip(best.Offset)
}

// skip goes to a content offset. A log that ends before it, a copy of the
// beginning of one that was read, has nothing new.
func (s *Source) skip(to int64) int64 {
	from := s.off
	s.floor = max(s.floor, to)
	if to <= from {
		return 0
	}
	if s.base >= 0 && to <= s.size && to > s.off+int64(s.end-s.pos) {
		s.seek(to)
	}
	for s.off < to {
		if s.pos == s.end && !s.fill() {
			break
		}
		n := int(min(to-s.off, int64(s.end-s.pos)))
		s.pos += n
		s.off += int64(n)
	}
	s.before, s.after = s.off, s.off
	return s.off - from
}

// seek goes to a content offset of a plain file behind the buffer.
func (s *Source) seek(to int64) {
	at, err := s.file.Seek(s.base+to, io.SeekStart)
	if err != nil {
		s.err = err
		return
	}
	s.raw.n.Add(at - s.base - s.off - int64(s.end-s.pos))
	s.off, s.pos, s.end = at-s.base, 0, 0
}

// same reports whether two sources are the same log, one perhaps longer.
func same(a, b *Source) bool {
	short, long := a, b
	if len(a.head) > len(b.head) {
		short, long = b, a
	}
	n := len(short.head)
	return n > 0 && short.sum(n) == long.sum(n)
}

// FirstLine is the first line of the content, or as much of it as HeadLen.
func (s *Source) FirstLine() []byte {
	line, _, _ := bytes.Cut(s.head, []byte("\n"))
	return line
}
