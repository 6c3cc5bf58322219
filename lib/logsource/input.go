package logsource

import (
	"bytes"
	"context"
	"io"

	"golang.org/x/sys/unix"
)

// plain takes from what is no pipe.
func (p *Pipe) plain(ctx context.Context, w *waiter, fd int) error {
	end := 0
	for {
		if _, err := w.wait(ctx, fd, -1); err != nil {
			return err
		}
		n, err := readFD(fd, p.buf[end:])
		if err == unix.EAGAIN {
			continue
		}
		if err != nil && err != io.EOF {
			return ioError(p.name(), err)
		}
		eof := err == io.EOF
		if end += n; eof && end > 0 && !p.skip {
			p.buf[end] = '\n'
			end++
			p.count.torn.Add(1)
		}
		if end, err = p.plainLines(ctx, end); err != nil || eof {
			return err
		}
	}
}

// plainLines hands on the whole lines of the buffer and returns how much is
// left in it, of which there is less than the buffer holds.
func (p *Pipe) plainLines(ctx context.Context, end int) (int, error) {
	b := p.buf[:end]
	if p.skip {
		i := bytes.IndexByte(b, '\n')
		p.skip = i < 0
		if p.skip {
			return 0, nil
		}
		b = b[i+1:]
	}
	whole := bytes.LastIndexByte(b, '\n') + 1
	rest := b[whole:]
	if len(rest) > MaxLine {
		p.skip = true
		p.count.cut.Add(1)
		if whole == 0 {
			b[MaxLine] = '\n'
			return 0, p.hand(ctx, b[:MaxLine+1])
		}
	}
	if whole > 0 {
		if err := p.hand(ctx, b[:whole]); err != nil {
			return 0, err
		}
	}
	if p.skip {
		rest[MaxLine] = '\n'
		return 0, p.hand(ctx, rest[:MaxLine+1])
	}
	return copy(p.buf, rest), nil
}

// hand hands on lines that are gone from where they were read.
func (p *Pipe) hand(ctx context.Context, b []byte) error {
	b, cut := tidy(b)
	p.count.cut.Add(cut)
	p.chunk = Chunk{Key: p.key, Lines: b}
	if err := p.sink.Put(ctx, &p.chunk); err != nil {
		return err
	}
	p.count.add(b)
	return nil
}
