package logsource

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// OmprogKey is the key of what rsyslog's omprog hands over.
const OmprogKey = "omprog"

// OmprogOptions are what an Omprog may be told. Zero values get the defaults.
type OmprogOptions struct {
	KeepAlive time.Duration // how often a dot is sent while the sink waits, 2 s; omprog's confirmTimeout is 10 s
	Log       *slog.Logger
}

// Omprog takes lines from rsyslog's omprog with confirmMessages="on" and
// useTransactions="off": a line is confirmed with "OK" when the sink has it,
// and while the sink waits, dots tell that somebody is there. When the sink
// fails, the answer is what went wrong, and rsyslog sends the line again.
//
// Killed between the sink and the answer, the program is started again and
// gets the line again. So the state has a hash of the last line, and the first
// line after a start is not handed on when it is that one. A line that rsyslog
// really has twice in the same words, the first as the last before and the
// second as the first behind a restart, is taken for one.
//
// A message with a newline in it is two lines and gets two answers, which
// omprog takes for an error: do not turn off rsyslog's
// parser.escapeControlCharactersOnReceive.
type Omprog struct {
	in    *os.File
	out   io.Writer
	sink  Sink
	opt   OmprogOptions
	log   *slog.Logger
	count counters

	mu      sync.Mutex // guards out
	waiting atomic.Bool
	buf     []byte
	end     int  // buf[:end] is there
	skip    bool // the rest of a line too long is being skipped
	last    []byte
	started bool // a line has come
	refused bool // transactions were, and that was said
	state   [omprogState]byte
	chunk   Chunk
	answers []byte
}

const omprogState = 1 + sha256.Size

// NewOmprog makes a source of a pipe from omprog and one to it.
func NewOmprog(in *os.File, out io.Writer, sink Sink, opt OmprogOptions) *Omprog {
	opt.KeepAlive = orElse(opt.KeepAlive, 2*time.Second)
	o := &Omprog{in: in, out: out, sink: sink, opt: opt, log: orElse(opt.Log, slog.New(slog.DiscardHandler))}
	o.buf = make([]byte, MaxChunk)
	return o
}

// Stats may be called at any time.
func (o *Omprog) Stats() Stats { return o.count.stats() }

// Run answers until the input ends or ctx is done, and returns nil then.
func (o *Omprog) Run(ctx context.Context) error {
	o.last = o.sink.State(OmprogKey)
	if len(o.last) > 0 && (len(o.last) != omprogState || o.last[0] != stateVersion) {
		return stateError(OmprogKey, errState)
	}
	w, err := newWaiter(ctx)
	if err != nil {
		return err
	}
	defer w.close()
	defer o.keepAlive()()
	if err := o.answer("OK", 1); err != nil {
		return err
	}
	in := newBrisk(int(o.in.Fd()), w)
	for {
		n, err := in.read(ctx, o.buf[o.end:])
		if err == io.EOF {
			return nilIfDone(ctx, o.rest(ctx))
		}
		if err != nil {
			return nilIfDone(ctx, ioError("standard input", err))
		}
		o.end += n
		if err := o.take(ctx); err != nil {
			return nilIfDone(ctx, err)
		}
	}
}

// nilIfDone is nil if ctx is done: that is how a source is ended.
func nilIfDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// rest is the line without a newline at the end of the input.
func (o *Omprog) rest(ctx context.Context) error {
	if o.end == 0 {
		return nil
	}
	o.buf[o.end] = '\n'
	o.end++
	o.count.torn.Add(1)
	err := o.take(ctx)
	if errors.Is(err, unix.EPIPE) { // nobody waits for the answer
		return nil
	}
	return err
}

// take hands on the whole lines that are there, and answers each. It leaves
// room in the buffer. Of a line that is too long it keeps what is allowed, and
// a byte more to tell; its end is waited for before it is answered.
func (o *Omprog) take(ctx context.Context) error {
	const keep = MaxLine + 1
	if o.skip {
		i := bytes.IndexByte(o.buf[keep:o.end], '\n')
		if i < 0 {
			o.end = keep
			return nil
		}
		o.skip = false
		o.end = keep + copy(o.buf[keep:], o.buf[keep+i:o.end])
	}
	whole := bytes.LastIndexByte(o.buf[:o.end], '\n') + 1
	if whole > 0 {
		err := o.lines(ctx, o.buf[:whole])
		o.end = copy(o.buf, o.buf[whole:o.end])
		if err != nil {
			return err
		}
	}
	if o.end > keep {
		o.end, o.skip = keep, true
	}
	return nil
}

// lines hands on whole lines. Marks of transactions are refused in their turn.
func (o *Omprog) lines(ctx context.Context, b []byte) error {
	for len(b) > 0 {
		run, mark := beforeMark(b)
		if len(run) > 0 {
			if err := o.hand(ctx, run); err != nil {
				return err
			}
		}
		b = b[len(run)+len(mark):]
		if len(mark) > 0 {
			if err := o.refuse(); err != nil {
				return err
			}
		}
	}
	return nil
}

var marks = [][]byte{[]byte("BEGIN TRANSACTION\n"), []byte("COMMIT TRANSACTION\n")}

var transaction = []byte(" TRANSACTION\n")

// beforeMark is what stands before the first mark of a transaction, and that.
func beforeMark(b []byte) (run, mark []byte) {
	if !bytes.Contains(b, transaction) {
		return b, nil
	}
	for at := 0; at < len(b); at += bytes.IndexByte(b[at:], '\n') + 1 {
		for _, m := range marks {
			if bytes.HasPrefix(b[at:], m) {
				return b[:at], b[at : at+len(m)]
			}
		}
	}
	return b, nil
}

// refuse answers a mark. Lines within a transaction would have to be confirmed
// otherwise, and an "OK" to the mark would be taken for one to lines.
func (o *Omprog) refuse() error {
	if !o.refused {
		o.refused = true
		o.log.Error("omprog sends transactions, which are refused, and nothing gets through: " +
			`set useTransactions="off" and confirmMessages="on" in rsyslog's action`)
	}
	return o.answer(`rol-logpipe takes no transactions: set useTransactions="off"`, 1)
}

// hand hands lines on and answers each.
func (o *Omprog) hand(ctx context.Context, b []byte) error {
	n := bytes.Count(b, newline)
	if again := o.again(b); again > 0 {
		if err := o.answer("OK", 1); err != nil {
			return err
		}
		if b, n = b[again:], n-1; n == 0 {
			return nil
		}
	}
	o.state[0] = stateVersion
	*(*[sha256.Size]byte)(o.state[1:]) = lastLine(b)
	b, cut := tidy(b)
	o.count.cut.Add(cut)
	o.chunk = Chunk{Key: OmprogKey, State: o.state[:], Lines: b}
	o.waiting.Store(true)
	err := o.sink.Put(ctx, &o.chunk)
	o.waiting.Store(false)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		o.log.Error("lines are not taken; rsyslog will send them again", "lines", n, "error", err)
		return o.answer(errorAnswer(err), n)
	}
	o.count.add(b)
	return o.answer("OK", n)
}

// again is how long the first line is, if it is the first after a start and
// the last before it; else 0.
func (o *Omprog) again(b []byte) int {
	if o.started {
		return 0
	}
	o.started = true
	n := bytes.IndexByte(b, '\n') + 1
	if sum := lastLine(b[:n]); len(o.last) > 0 && bytes.Equal(sum[:], o.last[1:]) {
		return n
	}
	return 0
}

// lastLine is the hash of the last of whole lines.
func lastLine(b []byte) [sha256.Size]byte {
	return sha256.Sum256(b[bytes.LastIndexByte(b[:len(b)-1], '\n')+1:])
}

// errorAnswer is an error as omprog takes it: a short line that begins with no
// dot.
func errorAnswer(err error) string {
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, err.Error())
	return "error: " + text[:min(len(text), 500)]
}

// answer sends an answer n times.
func (o *Omprog) answer(text string, n int) error {
	o.answers = o.answers[:0]
	for range n {
		o.answers = append(append(o.answers, text...), '\n')
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, err := o.out.Write(o.answers); err != nil {
		return ioError("standard output", err)
	}
	return nil
}

// keepAlive sends dots while the sink waits, until the function it returns is
// called. A dot belongs to the answer behind it.
func (o *Omprog) keepAlive() func() {
	quit := make(chan struct{})
	go func() {
		tick := time.NewTicker(o.opt.KeepAlive)
		defer tick.Stop()
		for was := false; ; {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			o.mu.Lock()
			is := o.waiting.Load()
			if was && is {
				o.out.Write([]byte(".")) // an error comes again with the answer
			}
			was = is
			o.mu.Unlock()
		}
	}()
	return func() { close(quit) }
}
