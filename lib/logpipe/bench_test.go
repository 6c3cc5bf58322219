package logpipe

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/rolmail/rolmail/lib/logsource"
)

// BenchmarkDryRun is the whole way without a store: source, parser, tracer.
func BenchmarkDryRun(b *testing.B) {
	var log []byte
	for i := range 20 {
		log = append(log, bytes.ReplaceAll(lab(b), []byte(" vm "), fmt.Appendf(nil, " vm%d ", i))...)
	}
	lines := bytes.Count(log, []byte("\n"))
	b.SetBytes(int64(len(log)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Replay(b.Context(), options(), []*logsource.Source{source(b, log)}, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(lines), "ns/line")
}
