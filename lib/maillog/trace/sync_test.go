package trace_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/trace"
)

// table is the open state as a store keeps it.
type table map[string][]byte

func (s table) save(key, data []byte) {
	if data == nil {
		delete(s, string(key))
	} else {
		s[string(key)] = bytes.Clone(data)
	}
}

func (s table) restore(tb testing.TB, tr *trace.Tracer) {
	tb.Helper()
	for k, v := range s { // in any order
		if err := tr.Restore([]byte(k), v); err != nil {
			tb.Fatalf("state %q: %v", k, err)
		}
	}
}

// TestRestoreAnywhere kills the tracer at random lines, and goes on with what
// was saved by then: the rows are those of a run undisturbed.
func TestRestoreAnywhere(t *testing.T) {
	for _, lab := range []string{"lab-a", "lab-b"} {
		lines := labLog(t, lab)
		want := run(lines).dump()
		for seed := range uint64(8) {
			rnd := rand.New(rand.NewPCG(seed, 5))
			rows, state := rowSet{}, table{}
			tr := trace.New(trace.Options{}, rows)
			p := maillog.NewParser(maillog.Options{Location: time.UTC, Now: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)})
			var ev maillog.Event
			for _, l := range lines {
				p.Parse(l, &ev)
				tr.Add(&ev)
				if rnd.IntN(20) != 0 {
					continue
				}
				tr.Sync()
				tr.Changes(state.save)
				if rnd.IntN(10) == 0 {
					tr = trace.New(trace.Options{}, rows)
					state.restore(t, tr)
				}
			}
			tr.Sync()
			if got := rows.dump(); got != want {
				t.Fatalf("%s, seed %d: %s", lab, seed, difference(got, want))
			}
		}
	}
}

// manyOpen is a tracer with n mails that have been tried once and wait.
func manyOpen(tb testing.TB, n int, opt trace.Options) *feeder {
	tb.Helper()
	f := newFeeder(opt, &counted{})
	for i := range n {
		if i%50 == 0 {
			f.now = f.now.Add(10 * time.Millisecond)
		}
		q := fmt.Sprintf("%010X", i+1<<24)
		f.begin(q)
		f.line("postfix/smtp[4]: %s: to=<u@example.com>, relay=a[192.0.2.1]:25, delay=1, delays=1/0/0/0, dsn=4.0.0, status=deferred (x)", q)
	}
	f.tr.Sync()
	f.tr.Changes(func(key, data []byte) {})
	return f
}

// oneEvent adds a line to one of the mails that are open.
func (f *feeder) oneEvent(i int) {
	f.now = f.now.Add(time.Millisecond)
	f.line("postfix/smtp[4]: %010X: to=<u@example.com>, relay=a[192.0.2.1]:25, delay=1, delays=1/0/0/0, dsn=4.0.0, status=deferred (x)", i+1<<24)
}

// What Sync and Changes cost is what has changed, not what is open.
func TestSyncCostsWhatHasChanged(t *testing.T) {
	open := 200_000
	if testing.Short() {
		open = 20_000
	}
	f := manyOpen(t, open, trace.Options{})
	best := time.Hour
	for i := range 20 {
		f.oneEvent(i * 997)
		n := 0
		begun := time.Now()
		f.tr.Sync()
		f.tr.Changes(func(key, data []byte) { n++ })
		best = min(best, time.Since(begun))
		if n > 3 {
			t.Fatalf("%d values changed by one line", n)
		}
	}
	if best > 200*time.Microsecond {
		t.Errorf("after one line Sync and Changes take %v with %d mails open", best, open)
	}
}

func BenchmarkSync(b *testing.B) {
	for _, n := range []int{1000, 200_000} {
		b.Run(fmt.Sprint(n, " open"), func(b *testing.B) {
			f := manyOpen(b, n, trace.Options{})
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				f.oneEvent(i % n)
				i += 997
				f.tr.Sync()
				f.tr.Changes(func(key, data []byte) {})
			}
		})
	}
}
