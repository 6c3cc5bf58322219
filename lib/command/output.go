package command

import (
	"errors"
	"io"
	"sync"
	"syscall"
)

// output is standard output. It remembers the first failure, so that a
// program which does not check every write still exits as it should.
type output struct {
	w    io.Writer
	gone func() // called once when nobody reads any more

	mu  sync.Mutex
	err error
}

// Write writes to standard output. After a failure it fails at once.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.w.Write(b)
	if err != nil {
		o.err = err
		if errors.Is(err, syscall.EPIPE) {
			o.gone()
		}
	}
	return n, err
}

// Unwrap returns the writer below, for package term.
func (o *output) Unwrap() io.Writer { return o.w }

func (o *output) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}
