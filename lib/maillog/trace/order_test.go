package trace_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/trace"
)

// rowSet is a sink that keeps the rows as a store would.
type rowSet map[flat.ID]*flat.Row

func (s rowSet) Put(r *flat.Row)   { s[r.ID] = r.Clone() }
func (s rowSet) Delete(id flat.ID) { delete(s, id) }

// labLog reads one of the lab logs: see tests/lab.
func labLog(t testing.TB, name string) [][]byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "tests", "lab", "testdata", name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n"))
}

func run(lines [][]byte) rowSet {
	rows := rowSet{}
	tr := trace.New(trace.Options{}, rows)
	p := maillog.NewParser(maillog.Options{Location: time.UTC, Now: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)})
	var ev maillog.Event
	for _, l := range lines {
		p.Parse(l, &ev)
		tr.Add(&ev)
	}
	tr.Sync()
	return rows
}

// disturb delays each host's lines by up to window, as syslog may, and loses
// some. jitter also breaks the order within a host.
func disturb(lines [][]byte, seed uint64, window time.Duration, loss float64, jitter bool) [][]byte {
	rnd := rand.New(rand.NewPCG(seed, 17))
	type arrival struct {
		at   int64
		line []byte
	}
	p := maillog.NewParser(maillog.Options{Location: time.UTC, Now: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)})
	var ev maillog.Event
	var all []arrival
	last := map[string]int64{}
	delay := map[string]int64{}
	for _, l := range lines {
		p.Parse(l, &ev)
		host := string(ev.Instance) // the lab's hosts are instances on one machine
		if _, ok := delay[host]; !ok || rnd.IntN(200) == 0 {
			delay[host] = rnd.Int64N(window.Microseconds() + 1)
		}
		d := delay[host]
		if jitter {
			d = rnd.Int64N(window.Microseconds() + 1)
		}
		at := ev.Time + d
		if !jitter {
			at = max(at, last[host])
			last[host] = at
		}
		if rnd.Float64() < loss {
			continue
		}
		all = append(all, arrival{at, l})
	}
	slices.SortStableFunc(all, func(a, b arrival) int { return int(a.at - b.at) })
	out := make([][]byte, len(all))
	for i, a := range all {
		out[i] = a.line
	}
	return out
}

// TestOrderDoesNotMatter shows that rows stay right when hosts' lines arrive
// up to 5 s late against each other and lines are lost: a row that says it is
// complete is the undisturbed one, and no row names an outcome, a recipient or
// a client that is wrong.
func TestOrderDoesNotMatter(t *testing.T) {
	for _, lab := range []string{"lab-a", "lab-b"} {
		lines := labLog(t, lab)
		want := run(lines)
		seeds := uint64(12)
		if testing.Short() {
			seeds = 3
		}
		for _, mode := range []struct {
			name   string
			loss   float64
			jitter bool
		}{{"late", 0, false}, {"lost", 0.02, false}, {"late and lost", 0.1, false}, {"jitter", 0, true}, {"jitter and lost", 0.05, true}} {
			t.Run(lab+"/"+mode.name, func(t *testing.T) {
				for seed := range seeds {
					got := run(disturb(lines, seed, 5*time.Second, mode.loss, mode.jitter))
					n := compare(t, fmt.Sprintf("seed %d", seed), want, got, mode.loss == 0 && !mode.jitter)
					if n > 10 {
						t.Fatalf("seed %d: %d wrong rows", seed, n)
					}
				}
			})
		}
	}
}

// truth is what the undisturbed run says of a sender and recipient.
func compare(t *testing.T, name string, want, got rowSet, same bool) (wrong int) {
	t.Helper()
	complain := func(format string, args ...any) {
		t.Errorf(name+": "+format, args...)
		wrong++
	}
	type pair struct{ sender, rcpt string }
	byPair := map[pair][]*flat.Row{}
	byQID := map[string]*flat.Row{}
	byRcpt := map[string][]*flat.Row{}
	clients := map[string]bool{}
	for _, r := range want {
		byPair[pair{r.Sender, r.Rcpt}] = append(byPair[pair{r.Sender, r.Rcpt}], r)
		byRcpt[r.Rcpt] = append(byRcpt[r.Rcpt], r)
		if r.QIDIn != "" {
			byQID[r.HostIn+r.QIDIn] = r
		}
		clients[r.ClientIP] = true
	}
	for _, r := range got {
		if r.Kind == flat.KindAbort || r.Rcpt == "" {
			if r.ClientIP != "" && !clients[r.ClientIP] {
				complain("client %s of nobody", r.ClientIP)
			}
			continue
		}
		cand := byPair[pair{r.Sender, r.Rcpt}]
		if r.Sender == "" {
			cand = byRcpt[r.Rcpt]
		}
		if len(cand) == 0 {
			complain("a row of %q to %q, which never was", r.Sender, r.Rcpt)
			continue
		}
		ok := false
		for _, w := range cand {
			ok = ok || agrees(r, w)
		}
		if !ok {
			complain("%s %s %q to %q: outcome %s client %q complete %v final %d evidence %q; undisturbed: %s %q", r.Kind, r.QIDIn, r.Sender, r.Rcpt,
				r.Outcome, r.ClientIP, r.Complete, r.TSFinal, r.Evidence, cand[0].Outcome, cand[0].ClientIP)
		}
	}
	if same && len(got) != len(want) {
		complain("%d rows, undisturbed %d", len(got), len(want))
	}
	return wrong
}

// agrees reports whether a row may stand for the undisturbed one.
func agrees(r, w *flat.Row) bool {
	if r.ClientIP != w.ClientIP && r.ClientIP != "" || r.Kind != w.Kind {
		return false
	}
	if r.Complete && r.TSFinal != 0 {
		return r.Outcome == w.Outcome && r.ClientIP == w.ClientIP && r.MsgID == w.MsgID && r.Verdict == w.Verdict &&
			r.QIDIn == w.QIDIn && r.QIDOut == w.QIDOut && r.Reason == w.Reason && r.TSFinal == w.TSFinal
	}
	switch r.Outcome {
	case w.Outcome, flat.Unknown:
		return true
	case flat.Deferred:
		return r.TSFinal == 0 // true as far as the log has come
	}
	return false
}
