package trace_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/trace"
)

// fullShelf has no room: everything stays in memory.
type fullShelf struct{}

func (fullShelf) Put([]byte) (int64, error)         { return 0, errors.New("no space left on device") }
func (fullShelf) Get(int64, []byte) ([]byte, error) { panic("nothing was put there") }
func (fullShelf) Drop(int64)                        { panic("nothing was put there") }

// TestAsideChangesNothing puts everything aside at once, kills the tracer now
// and then, and compares with one that has everything in memory: the rows are
// the same, whatever order the lines came in, and which were lost.
func TestAsideChangesNothing(t *testing.T) {
	total, seeds := 0, 8
	if s := os.Getenv("SEEDS"); s != "" {
		seeds, _ = strconv.Atoi(s)
	}
	for _, lab := range []string{"lab-a", "lab-b"} {
		for seed := range uint64(seeds) {
			rnd := rand.New(rand.NewPCG(seed, 7))
			lines := labLog(t, lab)
			pauses := seed%2 == 0
			switch seed % 4 {
			case 1:
				lines = disturb(lines, seed, 5*time.Second, 0, false)
			case 2:
				lines = disturb(lines, seed, 0, 0.05, false)
			case 3:
				lines = disturb(lines, seed, 5*time.Second, 0.1, true)
			}
			near, far := rowSet{}, rowSet{}
			a, b := trace.New(trace.Options{Shelf: fullShelf{}}, near), trace.New(trace.Options{}, far)
			state := table{}
			p := maillog.NewParser(maillog.Options{Location: time.UTC, Now: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)})
			var ev maillog.Event
			shift := int64(0)
			for i, l := range lines {
				p.Parse(l, &ev)
				if pauses && rnd.IntN(60) == 0 {
					shift += rnd.Int64N([]int64{30e6, 3000e6}[rnd.IntN(2)])
				}
				ev.Time += shift
				a.Add(&ev)
				b.Add(&ev)
				if rnd.IntN(3) > 0 { // what is put aside has its rows put, which may matter for what it is a parent of
					a.Sync()
					b.Sync()
					b.RestNow()
				}
				if b.Stats().Aside > total {
					total = b.Stats().Aside
				}
				if i%16 == 0 {
					if wrong := b.Check(); wrong != "" {
						t.Fatalf("%s, seed %d, line %d: %s", lab, seed, i, wrong)
					}
				}
				if rnd.IntN(40) != 0 {
					continue
				}
				b.Changes(state.save)
				if seed%3 == 0 && rnd.IntN(4) == 0 {
					b = trace.New(trace.Options{}, far)
					state.restore(t, b)
				}
			}
			a.Sync()
			b.Sync()
			if err := b.Err(); err != nil {
				t.Fatal(err)
			}
			if got, want := far.dump(), near.dump(); got != want {
				t.Fatalf("%s, seed %d: %s", lab, seed, difference(got, want))
			}
			if st, far := a.Stats(), b.Stats(); st.Legs != far.Legs || st.Scans != far.Scans {
				t.Errorf("%s, seed %d: open %+v, with all in memory %+v", lab, seed, far, st)
			}
		}
	}
	if total < 20 {
		t.Errorf("at most %d mails were aside: the test shows nothing", total)
	}
}
