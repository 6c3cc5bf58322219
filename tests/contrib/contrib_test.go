// Package contrib runs the files of contrib/ with the programs they are for,
// and looks whether what comes out is what rol-logpipe understands.
package contrib

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/tests/peer"
)

func TestMain(m *testing.M) { os.Exit(peer.Run(m)) }

// patience is how long a program may take to do what it was told.
const patience = 60 * time.Second

// waitFor polls until ok, or fails saying what it was that did not come.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// contribPath is the path of a file of contrib.
func contribPath(t *testing.T, name string) string {
	t.Helper()
	return filepath.Join(peer.Root(t), "contrib", name)
}

// contribFile is the text of a file of contrib, with an example's paths and
// ports replaced by those of the test; each of them must be in it.
func contribFile(t *testing.T, name string, oldNew ...string) string {
	t.Helper()
	b, err := os.ReadFile(contribPath(t, name))
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for i := 0; i < len(oldNew); i += 2 {
		if !strings.Contains(text, oldNew[i]) {
			t.Fatalf("contrib/%s has no %q", name, oldNew[i])
		}
		text = strings.ReplaceAll(text, oldNew[i], oldNew[i+1])
	}
	return text
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// read is a file's text, "" if there is none yet.
func read(path string) string {
	b, _ := os.ReadFile(path)
	return string(b)
}

// run runs a program to its end and returns what it prints.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, peer.Need(t, name), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// daemon is a program that runs beside the test, at most as long as it.
type daemon struct {
	t      *testing.T
	cmd    *exec.Cmd
	out    *safeBuffer
	exited chan struct{}
}

// start starts a program; env is added to the environment.
func start(t *testing.T, env []string, name string, args ...string) *daemon {
	t.Helper()
	d := &daemon{t: t, cmd: exec.Command(name, args...), out: &safeBuffer{}, exited: make(chan struct{})}
	d.cmd.Stdout, d.cmd.Stderr = d.out, d.out
	d.cmd.WaitDelay = 2 * time.Second // a grandchild may hold the output open
	d.cmd.Env = append(os.Environ(), env...)
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = d.cmd.Wait()
		close(d.exited)
	}()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s said:\n%s", name, d.out)
		}
		d.kill()
	})
	return d
}

// stop ends the program in good order and waits for its end.
func (d *daemon) stop() {
	d.t.Helper()
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.exited:
	case <-time.After(patience):
		d.t.Fatalf("%s does not end", d.cmd.Path)
	}
}

func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	<-d.exited
}

// safeBuffer collects what a program prints while the test looks at it.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// logLine is one message as a mail program says it.
type logLine struct{ tag, msg string }

// samples are n lines that a careless path would blur: idents with slashes,
// longer than RFC 3164 allows, text with colons, brackets and blanks.
func samples(n int) (lines []logLine) {
	for i := range n {
		qid := fmt.Sprintf("4PbC4x%04dz3tBr", i)
		lines = append(lines, []logLine{
			{fmt.Sprintf("postfix-out/submission/smtpd[%d]", 1234000+i), qid + ": client=pc[192.0.2.7], sasl_username=a: b"},
			{"mx2/qmgr[77]", qid + ": from=<a@example.org>, size=1, nrcpt=1 (queue active)"},
			{fmt.Sprintf("postfix/smtp[%d]", i+1), qid + ": to=<b@example.net>, relay=mx[192.0.2.1]:25, delay=1, " +
				"delays=0.1/0/0.2/0.7, dsn=2.0.0, status=sent (250 2.0.0 Ok:  queued [as] 1 " + strings.Repeat("x", i%1500) + ")"},
			{"amavis[23]", fmt.Sprintf("(00023-%02d) Passed CLEAN {RelayedInbound}, [192.0.2.7]:3 [192.0.2.7] <a@example.org> -> "+
				"<b@example.net>, Queue-ID: %s, mail_id: abcdefghijkl, Hits: 1.5, size: 7, queued_as: %s, 9 ms", i%90+1, qid, qid)},
		}[i%4])
	}
	return lines
}

// sameLines compares a log with the messages that went in: all, in order, from
// the host, with a fraction of a second, as the parser understands them.
func sameLines(t *testing.T, log, host string, want []logLine) {
	t.Helper()
	got := strings.Split(strings.TrimSuffix(log, "\n"), "\n")
	if len(got) != len(want) {
		t.Fatalf("%d lines came out, %d went in; the last is %q", len(got), len(want), got[len(got)-1])
	}
	p, fine := maillog.NewParser(maillog.Options{}), 0
	for i, line := range got {
		var ev maillog.Event
		if c := p.Parse([]byte(line), &ev); c != maillog.Used {
			t.Fatalf("line %d is of class %d: %q", i, c, line)
		}
		tag := fmt.Sprintf("%s[%d]", ev.Tag, ev.PID)
		if tag != want[i].tag || string(ev.Msg) != want[i].msg || host != "" && string(ev.Host) != host {
			t.Fatalf("line %d: host %q tag %q text %q, want %q %+v", i, ev.Host, tag, ev.Msg, host, want[i])
		}
		if !ev.Coarse {
			fine++
		}
		if d := time.Since(time.UnixMicro(ev.Time)); d < 0 || d > 2*patience {
			t.Fatalf("line %d: its time is %v ago: %q", i, d, line)
		}
	}
	if fine < len(got)*9/10 {
		t.Errorf("only %d of %d lines have fractions of a second", fine, len(got))
	}
}
