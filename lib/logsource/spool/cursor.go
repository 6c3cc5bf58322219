package spool

import (
	"bytes"
	"errors"
	"io"

	"github.com/rolmail/rolmail/lib/sysexits"
)

// readSize is how much is read of a segment at once. It must hold a block.
const readSize = 512 << 10

// errDamaged: what should be a block is none.
var errDamaged = errors.New("damaged block")

// cursor reads the blocks of a segment. What it gives out is valid until the
// next call.
type cursor struct {
	file  io.ReaderAt
	seed  uint32
	base  int64 // logical offset of the first block
	head  int64 // where in the file that is; unknown, -1, where the header is damaged
	at    int64 // where in the file buf[start] is
	limit int64 // where in the file the last block ends

	buf        []byte
	start, end int  // buf[start:end] is not yet given out
	eof        bool // somebody has cut the file before limit
}

// offset is the logical offset of the cursor.
func (c *cursor) offset() int64 { return c.base + c.at - c.head }

// place puts the cursor into a file.
func (c *cursor) place(file io.ReaderAt, base, head, at, limit int64) {
	if c.buf == nil {
		c.buf = make([]byte, readSize)
	}
	c.file, c.base, c.head, c.at, c.limit = file, base, head, at, limit
	c.start, c.end, c.eof = 0, 0, false
}

// pass goes on by n bytes of the buffer.
func (c *cursor) pass(n int) {
	c.start += n
	c.at += int64(n)
}

// ensure reads until the buffer has n bytes, or all before the limit or the
// end of the file.
func (c *cursor) ensure(n int) error {
	if c.end-c.start >= n || c.eof || int64(c.end-c.start) >= c.limit-c.at {
		return nil
	}
	copy(c.buf, c.buf[c.start:c.end])
	c.start, c.end = 0, c.end-c.start
	from := c.at + int64(c.end)
	want := c.buf[c.end:min(int64(len(c.buf)), int64(c.end)+c.limit-from)]
	got, err := c.file.ReadAt(want, from)
	c.end += got
	if err == io.EOF { // what is missing is damaged
		c.eof, err = true, nil
	}
	return sysexits.Wrap(sysexits.IO, err)
}

// peek returns the block at the cursor: nil at the limit, errDamaged where
// there is no whole block.
func (c *cursor) peek() ([]byte, error) {
	if err := c.ensure(blockHead); err != nil {
		return nil, err
	}
	if c.at == c.limit {
		return nil, nil
	}
	if c.end-c.start < blockHead {
		return nil, errDamaged
	}
	n := blockLength(c.buf[c.start:])
	if n == 0 || !c.here(blockOffset(c.buf[c.start:])) {
		return nil, errDamaged
	}
	if err := c.ensure(n); err != nil {
		return nil, err
	}
	if c.end-c.start < n || !sound(c.buf[c.start:c.start+n], c.seed) {
		return nil, errDamaged
	}
	return c.buf[c.start : c.start+n], nil
}

// here reports whether a block with this offset belongs where the cursor is.
func (c *cursor) here(offset int64) bool {
	if c.head < 0 {
		return offset >= c.base && offset-c.base <= c.at
	}
	return offset == c.offset()
}

// next returns the block at the cursor, as peek does, and passes it.
func (c *cursor) next() ([]byte, error) {
	b, err := c.peek()
	c.pass(len(b))
	return b, err
}

// resync goes from damage to the next block that checks out, or to the limit.
func (c *cursor) resync() error {
	for first := true; ; first = false {
		if err := c.ensure(blockHead); err != nil {
			return err
		}
		if c.end-c.start < blockHead {
			c.at, c.start = c.limit, c.end
			return nil
		}
		if first {
			c.pass(1)
			continue
		}
		i := bytes.Index(c.buf[c.start:c.end], marker[:])
		if i < 0 {
			c.pass(c.end - c.start - len(marker) + 1)
			continue
		}
		c.pass(i)
		if _, err := c.peek(); err != errDamaged {
			return err
		}
		c.pass(1)
	}
}
