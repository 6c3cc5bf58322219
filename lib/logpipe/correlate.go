package logpipe

import (
	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/trace"
)

// correlator makes rows of events, and counts the lines behind them.
type correlator struct {
	tracer *trace.Tracer
	out    *collector
	count  *counters
}

// newCorrelator begins anew; keep says that its rows are wanted.
func newCorrelator(opt trace.Options, keep bool) correlator {
	out := newCollector(keep)
	return correlator{tracer: trace.New(opt, out), out: out, count: newCounters()}
}

// add takes a line that p has parsed into ev.
func (c *correlator) add(p *maillog.Parser, ev *maillog.Event, line []byte) {
	switch ev.Class {
	case maillog.Used:
		c.count.used++
		c.tracer.Add(ev)
	case maillog.Noise:
		c.count.addNoise(ev.Program)
	default:
		c.count.addUnparsed(p.Shape(line, ev), line, ev.Class == maillog.Foreign)
	}
}
