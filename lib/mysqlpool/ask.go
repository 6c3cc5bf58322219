package mysqlpool

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// answer is what one host said to a question.
type answer[T any] struct {
	host    *host
	value   T
	err     error
	session bool // there was one: err is of the question
}

// Ask asks one short question, such as a lookup, and takes the first answer.
// f gets a session on the active host; when it has not returned within
// Options.Hedge it is called for the next host as well, at the same time, and
// when a host is lost the next one is asked at once. So f only reads, and
// gives what it found as its value. Any other error of f's is the answer. All
// together takes at most Options.Budget; a host that is slower than the first
// to answer may go on until then, in the background.
//
// Errors are those of f, or, with a status, as those of Conn.
func Ask[T any](ctx context.Context, p *Pool, f func(context.Context, *Conn) (T, error)) (T, error) {
	q := question[T]{pool: p, caller: ctx, f: f, answers: make(chan answer[T], maxHosts+1)}
	if err := p.start(); err != nil {
		return q.none, err
	}
	q.ctx, q.cancel = context.WithTimeout(ctx, p.opt.Budget)
	defer q.leave()
	q.queue = p.candidates()
	q.next()
	return q.wait()
}

// question is one call of Ask.
type question[T any] struct {
	pool    *Pool
	caller  context.Context
	ctx     context.Context // of at most Budget
	cancel  context.CancelFunc
	f       func(context.Context, *Conn) (T, error)
	none    T
	answers chan answer[T] // has room for all that will ever come
	queue   []*host        // not asked yet
	asked   []*host        // no answer yet
	tried   []refusal
	retried bool
}

// next asks the next host.
func (q *question[T]) next() {
	h := q.queue[0]
	q.queue = q.queue[1:]
	q.asked = append(q.asked, h)
	go func() { q.answers <- q.ask(h) }()
}

func (q *question[T]) ask(h *host) answer[T] {
	sc, err := h.session(q.ctx)
	if err != nil {
		return answer[T]{host: h, err: err}
	}
	h.works()
	c := newConn(sc, h)
	defer c.Close()
	v, err := q.f(q.ctx, c)
	if Lost(err) {
		err = because(err, c.wire)
	}
	return answer[T]{h, v, err, true}
}

func (q *question[T]) wait() (T, error) {
	hedge := time.NewTicker(q.pool.opt.Hedge)
	defer hedge.Stop()
	for {
		select {
		case a := <-q.answers:
			if q.take(a) {
				return a.value, a.err
			}
			switch {
			case len(q.queue) > 0:
				q.next()
			case len(q.asked) == 0 && q.ctx.Err() == nil:
				return q.none, q.pool.Word(&unreachable{q.tried}, "")
			}
		case <-hedge.C:
			for _, h := range q.asked {
				h.suspect()
			}
			if len(q.queue) > 0 && q.queue[0].condition() != down {
				q.next()
			}
		case <-q.ctx.Done():
			return q.none, q.late()
		}
	}
}

// take reports whether an answer is the one.
func (q *question[T]) take(a answer[T]) bool {
	for i, h := range q.asked {
		if h == a.host {
			q.asked = append(q.asked[:i:i], q.asked[i+1:]...)
			break
		}
	}
	switch {
	case a.err == nil:
		return true
	case q.ctx.Err() != nil: // which the loop sees next
		a.err = &silence{"a question", q.pool.opt.Budget}
	case !a.session, Code(a.err) == codeNotPrepared:
		a.host.lost(a.err)
	case !Lost(a.err):
		return true
	default:
		if _, hung := errors.AsType[*silence](a.err); !hung && !q.retried { // perhaps only this session was lost
			q.retried = true
			q.queue = append(q.queue, a.host)
		}
	}
	q.tried = append(q.tried, refusal{a.host.name, a.err})
	return false
}

// late is the error when the time is over.
func (q *question[T]) late() error {
	if q.caller.Err() != nil {
		return fmt.Errorf("waiting for an answer of a database: %w", context.Cause(q.caller))
	}
	for _, h := range q.asked {
		q.tried = append(q.tried, refusal{h.name, &silence{"a question", q.pool.opt.Budget}})
	}
	return q.pool.Word(&unreachable{q.tried}, "")
}

// leave lets the slower hosts end in their own time.
func (q *question[T]) leave() {
	if len(q.asked) == 0 {
		q.cancel()
		return
	}
	go func(n int) {
		for range n {
			<-q.answers
		}
		q.cancel()
	}(len(q.asked))
}
