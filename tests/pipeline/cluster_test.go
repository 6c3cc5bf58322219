package pipeline

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rolmail/rolmail/tests/peer"
)

// cluster is the mail servers; it runs from the first test that needs it until
// the end. Each scenario brings its own rsyslogd.
type cluster struct {
	dir      string
	machines []*machine // mx1, mf1, out1
	sink     *sink
	mx, out  *postfix
	amavis   *amavis
	runs     int
}

var shared struct {
	sync.Mutex
	*cluster
}

// theCluster returns the cluster; no rsyslogd reads what it logs yet.
func theCluster(t testing.TB) *cluster {
	t.Helper()
	needPrivate(t)
	for _, command := range []string{"postfix", "amavisd", "rsyslogd"} {
		peer.Need(t, command)
	}
	shared.Lock()
	defer shared.Unlock()
	if shared.cluster != nil {
		return shared.cluster
	}
	dir, err := os.MkdirTemp("", "rol-pipeline-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	auth := filepath.Join(dir, "auth")
	startStubs(t, auth)
	c := &cluster{dir: dir, sink: startSink(t)}
	for _, name := range []string{"mx1", "mf1", "out1"} {
		c.machines = append(c.machines, newMachine(t, dir, name))
	}
	begun := time.Now()
	c.out = startOut(t, c.machines[2], filepath.Join(dir, "out"))
	c.amavis = startAmavis(t, c.machines[1], filepath.Join(dir, "amavis"))
	c.mx = startMX(t, c.machines[0], filepath.Join(dir, "mx"), auth)
	t.Logf("the cluster started in %v", time.Since(begun).Round(time.Millisecond))
	shared.cluster = c
	return c
}

// closeCluster ends the servers, once all tests are done.
func closeCluster() {
	shared.Lock()
	defer shared.Unlock()
	if c := shared.cluster; c != nil {
		_ = c.mx.stop()
		c.amavis.stop()
		_ = c.out.stop()
		_ = os.RemoveAll(c.dir)
	}
}

// idle waits until no mail is on its way any more. A mail is in the next queue
// before it leaves the one in front, so the queues are looked at in its
// direction; several times, as a look at a directory is no snapshot.
func (c *cluster) idle(within time.Duration) error {
	empty := 0
	deadline := time.Now().Add(within)
	help := deadline.Add(-within / 2)
	for empty < 4 {
		if c.mx.queued()+c.out.queued() == 0 {
			empty++
		} else {
			empty = 0
		}
		if time.Now().After(help) {
			// A queue file that the queue manager found locked when its time
			// came ("skipped, still being delivered") stays among the active
			// ones, and nobody looks at it again, until it is reloaded.
			help = deadline
			c.mx.reload()
			c.out.reload()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %v still in the queues: %d in front, %d behind", within, c.mx.queued(), c.out.queued())
		}
		<-time.After(50 * time.Millisecond)
	}
	return nil
}
