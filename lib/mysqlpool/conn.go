package mysqlpool

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"
)

// Conn is a session on one host. Closing it gives it back, unless it is lost
// or has a transaction open, and then somebody else gets it as it is: what
// was changed by SET or is held by GET_LOCK stays. Discard ends it instead.
// It is for one goroutine at a time.
type Conn struct {
	*sql.Conn
	host *host
	wire *wire
}

func newConn(sc *sql.Conn, h *host) *Conn {
	c := &Conn{Conn: sc, host: h}
	_ = sc.Raw(func(dc any) error {
		c.wire = dc.(*session).wire
		return nil
	})
	return c
}

// Host is the name of the session's host: unix:/path or host:port.
func (c *Conn) Host() string { return c.host.name }

// Stale reports whether sessions are made on another host by now: between
// two transactions is the time to close this one and ask for a new one.
func (c *Conn) Stale() bool { return c.host.pool.active.Load() != int32(c.host.rank) }

// Silence lets the server work on each statement of this session for d
// without a word, instead of Options.Read: for an ALTER TABLE. 0 is for ever.
// Close takes it back.
func (c *Conn) Silence(d time.Duration) error {
	return c.Raw(func(dc any) error {
		dc.(*session).wire.read.Store(int64(d))
		return nil
	})
}

// Discard ends the session itself, and with it its locks, temporary tables,
// variables and an open transaction.
func (c *Conn) Discard() error {
	err := c.Raw(func(any) error { return driver.ErrBadConn })
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) {
		return nil
	}
	return err
}

// Fail says that the host is of no use although it answers: it has become
// read-only, or lacks what another host had. It counts as down until a probe
// finds it well, so the next Conn is on another host if there is one.
func (c *Conn) Fail(err error) { c.host.lost(err) }

// Conn returns a session on the active host, or on the best other one if
// that fails: each host is tried at most once, those that are down only when
// none is up. The error names every host that was tried and has a status, as
// from Word; Lost, Again and Code see through it. It does not wait for a host
// to come back.
func (p *Pool) Conn(ctx context.Context) (*Conn, error) {
	if err := p.start(); err != nil {
		return nil, err
	}
	var tried []refusal
	for _, h := range p.candidates() {
		sc, err := h.session(ctx)
		if err == nil {
			h.works()
			p.activate(h, "the other failed")
			return newConn(sc, h), nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("waiting for database host %s: %w", h.name, context.Cause(ctx))
		}
		h.lost(err)
		tried = append(tried, refusal{h.name, err})
	}
	return nil, p.Word(&unreachable{tried}, "")
}

// candidates are the hosts in the order in which Conn tries them.
func (p *Pool) candidates() []*host {
	first := p.hosts[p.active.Load()]
	var well, ill []*host
	for _, h := range append([]*host{first}, p.hosts...) {
		switch {
		case h == first && len(well)+len(ill) > 0:
		case h.condition() == down:
			ill = append(ill, h)
		default:
			well = append(well, h)
		}
	}
	return append(well, ill...)
}
