package mysqlpool

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rolmail/rolmail/lib/term"
)

// HostState is what a pool knows of one of its hosts.
type HostState struct {
	Name      string        // unix:/path or host:port
	Up        bool          // it answered when it was last asked
	Active    bool          // sessions are made on it
	Since     time.Time     // of Up or not; zero: nobody has asked it yet
	LastError string        // the last failure, printable, at most maxError columns; stays when it is up again
	Connects  uint64        // sessions made
	Failures  uint64        // connects and probes that failed, sessions lost
	Latency   time.Duration // of the last probe or connect: a question and its answer
}

// maxError is how long LastError gets.
const maxError = 200

type condition int

const (
	unknown condition = iota
	up
	down
)

// host is one server and what is known of it.
type host struct {
	pool *Pool
	rank int // in the order of preference
	name string
	netw string
	addr string
	db   *sql.DB

	heard    atomic.Int64 // when it last said something, Unix nanoseconds
	connects atomic.Uint64
	failures atomic.Uint64
	latency  atomic.Int64
	kick     chan struct{} // wakes the watcher

	mu    sync.Mutex
	cond  condition
	since time.Time
	last  string
	tries int // probes that failed since it went down
}

func (h *host) condition() condition {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cond
}

func (h *host) state() HostState {
	h.mu.Lock()
	defer h.mu.Unlock()
	return HostState{
		Name: h.name, Up: h.cond == up, Active: h.pool.active.Load() == int32(h.rank), Since: h.since, LastError: h.last,
		Connects: h.connects.Load(), Failures: h.failures.Load(), Latency: time.Duration(h.latency.Load()),
	}
}

// healthy is how long the host has been up.
func (h *host) healthy() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cond != up {
		return 0
	}
	return time.Since(h.since)
}

// works takes note that the host answered.
func (h *host) works() {
	h.mu.Lock()
	was := h.cond
	h.tries = 0
	if was != up {
		h.cond, h.since = up, time.Now()
	}
	h.mu.Unlock()
	if was == down {
		h.pool.opt.Log.Info("database host is up again", "host", h.name)
		h.pool.elect()
	}
}

// lost takes note that the host failed: a connect, a probe or a session. Its
// idle sessions are closed; those in use are left to their users.
func (h *host) lost(err error) {
	h.failures.Add(1)
	text := clean(err.Error())
	h.mu.Lock()
	was := h.cond
	h.last = text
	if was != down {
		h.cond, h.since, h.tries = down, time.Now(), 0
	}
	h.mu.Unlock()
	if was == down {
		return
	}
	h.pool.opt.Log.Warn("database host is down", "host", h.name, "error", text)
	h.pool.elect()
	h.wake()
	// Not from here: this may be one of the sessions that are closed.
	go h.dropIdle()
}

// lostSession takes note that a session made at born has ended. One that the
// host's last restart took with it says nothing about the host as it is.
func (h *host) lostSession(err error, born time.Time) {
	h.mu.Lock()
	old := h.cond == up && h.since.After(born)
	h.mu.Unlock()
	if _, hung := errors.AsType[*silence](err); old && !hung {
		h.failures.Add(1)
		h.suspect()
		return
	}
	h.lost(err)
}

func (h *host) dropIdle() {
	h.db.SetMaxIdleConns(-1)
	h.db.SetMaxIdleConns(h.pool.opt.MaxIdle)
}

// suspect has the host probed at once, because somebody waited in vain.
func (h *host) suspect() {
	if h.condition() != down {
		h.wake()
	}
}

func (h *host) wake() {
	select {
	case h.kick <- struct{}{}:
	default:
	}
}

// session takes a session of the host, a new one or an idle one that has
// answered lately.
func (h *host) session(ctx context.Context) (*sql.Conn, error) {
	began := time.Now()
	c, err := h.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	if began.UnixNano()-h.heard.Load() < int64(quiet) {
		return c, nil
	}
	// A server that hangs takes the question and does not answer; a
	// statement of the caller's would wait for its whole deadline.
	if err := h.ask(ctx, c); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// quiet is how long a host may have said nothing before a session of it is
// asked whether it still answers.
const quiet = time.Second

// ask has a session answer within Login, and says whether the server is fit.
func (h *host) ask(ctx context.Context, c *sql.Conn) error {
	began := time.Now()
	return bounded(ctx, h.pool.opt.Login, "a probe", func(ctx context.Context) error {
		err := c.Raw(func(dc any) error { return h.pool.fit(ctx, dc.(*session)) })
		if err == nil {
			h.latency.Store(int64(time.Since(began)))
		}
		return err
	})
}

// probe asks the host whether it works.
func (h *host) probe(ctx context.Context) {
	c, err := h.db.Conn(ctx)
	if err == nil {
		err = h.ask(ctx, c)
		_ = c.Close()
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		h.lost(err)
		h.mu.Lock()
		h.tries++
		h.mu.Unlock()
	default:
		h.works()
	}
}

// pause is the time to the next probe.
func (h *host) pause() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cond != down {
		// A fifth of jitter, so that many programs do not ask at once.
		return h.pool.opt.Probe*4/5 + rand.N(h.pool.opt.Probe*2/5)
	}
	return backoff(h.pool.opt.Backoff, h.pool.opt.MaxBackoff, h.tries)
}

// backoff is a random time up to first doubled so many times, at most most.
func backoff(first, most time.Duration, tries int) time.Duration {
	d := first
	for range tries {
		if d >= most/2 {
			d = most
			break
		}
		d *= 2
	}
	return rand.N(d) + 1
}

// watch probes the host until the pool is closed: when it is down with a
// growing pause, so that it is known when it comes back, and otherwise when
// nothing has been heard of it for a while.
func (h *host) watch(ctx context.Context) {
	for {
		timer := time.NewTimer(h.pause())
		kicked := false
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-h.kick:
			timer.Stop()
			kicked = true
		case <-timer.C:
		}
		if kicked && h.condition() == down {
			continue // it has just failed: pause first
		}
		if kicked || time.Now().UnixNano()-h.heard.Load() >= int64(h.pool.opt.Probe)*4/5 {
			h.probe(ctx)
		}
		h.pool.failback(ctx, h)
	}
}

// clean makes a text of a server's fit for a line of a log.
func clean(s string) string { return term.Fit(s, maxError) }

// quietLog is a logger of the driver's.
type quietLog struct{ log *slog.Logger }

func (l quietLog) Print(v ...any) { l.log.Debug("mysql driver", "message", clean(fmt.Sprint(v...))) }
