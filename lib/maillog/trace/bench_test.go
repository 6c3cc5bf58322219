package trace_test

import (
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/trace"
)

type counted struct{ rows int }

func (c *counted) Put(*flat.Row)  { c.rows++ }
func (c *counted) Delete(flat.ID) {}

// BenchmarkTrace parses and correlates a lab log again and again, each time a
// minute later, so that its queue ids come again as new mails.
func BenchmarkTrace(b *testing.B) {
	lines := labLog(b, "lab-a")
	size := 0
	for _, l := range lines {
		size += len(l) + 1
	}
	sink := &counted{}
	tr := trace.New(trace.Options{}, sink)
	p := maillog.NewParser(maillog.Options{Location: time.UTC})
	var ev maillog.Event
	shift := int64(0)
	b.ReportAllocs()
	b.SetBytes(int64(size))
	for b.Loop() {
		for _, l := range lines {
			p.Parse(l, &ev)
			ev.Time += shift
			tr.Add(&ev)
		}
		shift += 60_000_000
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(lines)), "ns/line")
}
