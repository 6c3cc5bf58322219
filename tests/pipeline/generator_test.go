package pipeline

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/rolmail/rolmail/tests/lab"
)

// generator sends mails and writes down the truth of each.
type generator struct {
	run  int
	seed uint64

	mu     sync.Mutex
	rng    *rand.Rand
	truths []lab.Truth
	wrong  []string // what the cluster did not answer as it should: the lab is broken
}

// workers is how many clients there are at a time.
const workers = 8

func newGenerator(t testing.TB, c *cluster, seed uint64) *generator {
	c.runs++
	t.Logf("run %d, seed %d", c.runs, seed)
	c.sink.takeNotices() // of a run that failed
	return &generator{run: c.runs, seed: seed, rng: rand.New(rand.NewPCG(seed, 0))}
}

// intn is a random number below n.
func (g *generator) intn(n int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.rng.IntN(n)
}

// plan is the kinds of n mails: each at least once, the others by weight, in
// any order.
func (g *generator) plan(n int) []kind {
	plan := append([]kind(nil), kinds...)
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	for len(plan) < n {
		at := g.intn(total)
		for _, k := range kinds {
			if at -= k.weight; at < 0 {
				plan = append(plan, k)
				break
			}
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rng.Shuffle(len(plan), func(i, j int) { plan[i], plan[j] = plan[j], plan[i] })
	// Those that take seconds come in the first two thirds, so that nobody has
	// to wait for them at the end.
	for i := 2 * len(plan) / 3; i < len(plan); i++ {
		for slow[plan[i].name] {
			j := g.rng.IntN(i)
			if !slow[plan[j].name] {
				plan[i], plan[j] = plan[j], plan[i]
			}
		}
	}
	return plan
}

// slow are the kinds for which somebody has to wait.
var slow = map[string]bool{"later": true, "expire": true, "multi": true, "timeout": true}

// send sends n mails, spread over a time if that is not 0, and returns when
// the last client has gone.
func (g *generator) send(n int, over time.Duration) {
	todo := make(chan *mail)
	var all sync.WaitGroup
	plan := g.plan(n)
	byName := map[string]func(*mail){}
	for _, k := range plan {
		byName[k.name] = k.run
	}
	for range workers {
		all.Go(func() {
			for m := range todo {
				byName[m.kind](m)
			}
		})
	}
	begun := time.Now()
	for i, k := range plan {
		if at := over * time.Duration(i) / time.Duration(len(plan)); at > time.Since(begun) {
			<-time.After(at - time.Since(begun))
		}
		todo <- g.mail(i+1, k.name)
	}
	close(todo)
	all.Wait()
}

func (g *generator) mail(n int, kind string) *mail {
	m := &mail{g: g, n: n, kind: kind}
	m.ip = fmt.Sprintf("%s%d.%d", m.net(), n>>8, n&255)
	m.helo = fmt.Sprintf("mail%d.sender%d.example", n%100, n%40)
	m.sender = fmt.Sprintf("%s@sender%d.example", m.name("s"), n%40)
	m.rcpt = m.name("ok") + "@" + m.domain()
	return m
}

// note writes down what becomes of a mail, unless its session went otherwise
// than it must.
func (g *generator) note(m *mail, c *client, truths ...lab.Truth) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.err != nil {
		g.wrong = append(g.wrong, fmt.Sprintf("%s %d from %s: %v", m.kind, m.n, m.ip, c.err))
	}
	c.drop()
	g.truths = append(g.truths, truths...)
}

// finish waits until the queues are empty, calls then, asks the sink whether
// all is as it must be, and returns all truths, with those of the notices.
func (g *generator) finish(t testing.TB, c *cluster, within time.Duration, then func()) []lab.Truth {
	t.Helper()
	idle := c.idle(within)
	then()
	if idle != nil {
		t.Fatal(idle)
	}
	for i, w := range g.wrong {
		if i < 20 {
			t.Error("the cluster does not answer as it must:", w)
		}
	}
	notices := map[string]bool{} // senders that must get one
	for _, truth := range g.truths {
		n, want := c.sink.delivered(truth.Rcpt, truth.MsgID), 0
		if truth.Fate == "sent" {
			want = 1
		}
		if truth.MsgID != "" && n != want {
			t.Errorf("the final server took %d of %+v", n, truth)
		}
		if (truth.Fate == "bounced" || truth.Fate == "expired") && truth.Sender != "" {
			notices[truth.Sender] = true
		}
	}
	all := append([]lab.Truth(nil), g.truths...)
	for _, d := range c.sink.takeNotices() {
		delete(notices, d.rcpt)
		all = append(all, lab.Truth{Kind: lab.Notice, Fate: "sent", Rcpt: d.rcpt, MsgID: d.msgid})
	}
	for sender := range notices {
		t.Errorf("%s got no notice", sender)
	}
	if t.Failed() {
		t.FailNow()
	}
	return all
}
