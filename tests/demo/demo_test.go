// Package demo holds the demonstration (make demo) to what it promises.
package demo

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/tests/peer"
)

func TestDemo(t *testing.T) {
	peer.Need(t, "make")
	c := exec.Command(filepath.Join(peer.Root(t), "tests", "demo", "run"))
	c.Env = append(os.Environ(), "COLUMNS=80")
	b, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	out := string(b)
	for _, want := range []string{
		"148 lines, 148 used, 0 noise, 0 unparsed, 17 rows",
		"554 5.1.1 Recipient address rejected: User unknown in relay recipient table",
		"SPAM 1001.4",
		"lost connection after CONNECT",
		"3 attempts",
		"0 lines, 0 used, 0 noise, 0 unparsed, 0 rows",
		"LOGPIPE OK - 74 lines of 3 hosts",
		"17 rows in maillog.db, the same 17 rows in live.db.",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the demo does not show %q", want)
		}
	}
	_, tenant, ok := strings.Cut(out, "--domain florist.example\n")
	tenant, _, _ = strings.Cut(tenant, "\n\n")
	if !ok {
		t.Error("the demo shows no tenant's view")
	}
	for _, other := range []string{"garage.example", "bakery.example", "192.0.2.155"} {
		if strings.Contains(tenant, other) {
			t.Errorf("the flower shop sees %s:\n%s", other, tenant)
		}
	}
	if strings.Count(tenant, " -> ") != 4 {
		t.Errorf("the flower shop does not see its four mails:\n%s", tenant)
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}
