package logsource

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkOmprogRsyslog is what a rsyslogd gets confirmed, each line in a
// write(2) to a file, by the source and by the least that answers.
func BenchmarkOmprogRsyslog(b *testing.B) {
	for _, kind := range []string{"omprog", "trivial"} {
		b.Run(kind, func(b *testing.B) { benchOmprog(b, kind) })
	}
}

func benchOmprog(b *testing.B, kind string) {
	const n = 200000
	for b.Loop() {
		r := startRsyslog(b, kind, `action(type="omprog" binary="CHILD" template="line" confirmMessages="on" useTransactions="off"
	action.resumeRetryCount="-1" queue.type="LinkedList" queue.size="400000" queue.workerThreads="1")`)
		from := time.Now()
		r.send(0, n)
		size := int64(0)
		for last := time.Now(); time.Since(last) < time.Second/4; time.Sleep(time.Millisecond) {
			if fi, err := os.Stat(filepath.Join(r.dir, "diary")); err == nil && fi.Size() != size {
				size, last = fi.Size(), time.Now()
			}
		}
		b.ReportMetric(n/(time.Since(from)-time.Second/4).Seconds(), "lines/s")
		if kind == "omprog" && len(r.numbers()) != n {
			b.Fatal("not every line came")
		}
		r.end()
	}
}
