package logpipe

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/trace"
	"github.com/rolmail/rolmail/tests/peer"
)

// For the processes of TestManyOpenMails.
const (
	manyEnv  = "ROL_TEST_MANY" // directory
	manyOpen = 200_000
)

type noSink struct{ rows int }

func (n *noSink) Put(*flat.Row)  { n.rows++ }
func (n *noSink) Delete(flat.ID) {}

// manyLines writes the lines of a mail that came in, was scanned and waits at
// the last hop: two queue files, two sessions and a verdict.
func manyLines(i int, line func(after time.Duration, format string, args ...any)) {
	in, out, am := fmt.Sprintf("4jYC%06dz1T", i), fmt.Sprintf("4kZD%06dz1T", i), fmt.Sprintf("%05d-%02d", 10000+i%7919, i%97)
	client := fmt.Sprintf("mail%d.example.net[192.0.%d.%d]", i, i>>8&255, i&255)
	from, to := fmt.Sprintf("sender%d@customer%d.example.net", i, i%5000), fmt.Sprintf("recipient%d@example%d.com", i, i%300)
	id := fmt.Sprintf("20261110090000.%d@mail.customer%d.example.net", i, i%5000)
	s, s2 := 1000+i%97, 2000+i%89
	line(0, "mx2/smtpd[%d]: connect from %s", s, client)
	line(0, "mx2/smtpd[%d]: Anonymous TLS connection established from %s: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)", s, client)
	line(0, "mx2/smtpd[%d]: %s: client=%s", s, in, client)
	line(0, "mx2/cleanup[7]: %s: message-id=<%s>", in, id)
	line(0, "mx2/qmgr[3]: %s: from=<%s>, size=14369, nrcpt=1 (queue active)", in, from)
	line(0, "mx2/smtpd[%d]: disconnect from %s ehlo=2 starttls=1 mail=1 rcpt=1 data=1 quit=1 commands=7", s, client)
	line(1, "out1/smtpd[%d]: connect from localhost[127.0.0.1]", s2)
	line(1, "out1/smtpd[%d]: %s: client=localhost[127.0.0.1], orig_queue_id=%s, orig_client=%s", s2, out, in, client)
	line(1, "out1/cleanup[8]: %s: message-id=<%s>", out, id)
	line(1, "out1/qmgr[4]: %s: from=<%s>, size=15916, nrcpt=1 (queue active)", out, from)
	line(1, "out1/smtpd[%d]: disconnect from localhost[127.0.0.1] ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5", s2)
	line(1, "amavis[%d]: (%s) Passed CLEAN {RelayedInbound}, [192.0.2.1]:58587 <%s> -> <%s>, Queue-ID: %s, Message-ID: <%s>, mail_id: rWHsaIsbErkm, Hits: 1.399, size: 14369, queued_as: %s, 93 ms", 3000+i%83, am, from, to, in, id, out)
	line(1, "mx2/smtp[5]: %s: to=<%s>, relay=127.0.0.1[127.0.0.1]:10024, delay=1.9, delays=0/1.8/0/0.09, dsn=2.0.0, status=sent (250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as %s)", in, to, out)
	line(1, "mx2/qmgr[3]: %s: removed", in)
	manyAgain(i, line)
}

// manyAgain is an attempt to deliver that mail.
func manyAgain(i int, line func(after time.Duration, format string, args ...any)) {
	line(1, "out1/smtp[6]: 4kZD%06dz1T: to=<recipient%d@example%d.com>, relay=mx.example%d.com[198.51.100.%d]:25, delay=12, delays=0.1/0/10/2, dsn=4.7.1, status=deferred (host mx.example%d.com[198.51.100.%d] said: 450 4.7.1 <recipient%d@example%d.com>: Recipient address rejected: Greylisting in action, please come back later (in reply to RCPT TO command))",
		i, i, i%300, i%300, i%200, i%300, i%200, i, i%300)
}

// manyFeeder gives lines to a tracer, each so many seconds after now.
func manyFeeder(tr *trace.Tracer, now *time.Time) func(after time.Duration, format string, args ...any) {
	p := maillog.NewParser(maillog.Options{Location: time.UTC})
	ev := new(maillog.Event)
	var b []byte
	return func(after time.Duration, format string, args ...any) {
		b = now.Add(after*time.Second).AppendFormat(b[:0], "2006-01-02T15:04:05.000000-07:00")
		b = fmt.Appendf(append(b, " mx1 "...), format, args...)
		p.Parse(b, ev)
		tr.Add(ev)
	}
}

// resident is what the process has in memory, now and at most, MB.
func resident(t *testing.T) (now, most float64) {
	rss, peak, err := peer.Memory(os.Getpid())
	if err != nil {
		t.Skip(err)
	}
	return float64(rss) / (1 << 20), float64(peak) / (1 << 20)
}

// cpuTime is what the process has taken of the processors.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return time.Hour
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestManyOpenMails is 200,000 mails that wait, each of them two queue files:
// what they take of memory, while they come, while they are tried again, and
// after a restart; and how long that takes. The parser, the spool and the
// database need 50 MB of the 150 that the service may take.
func TestManyOpenMails(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a while")
	}
	dir := t.TempDir()
	for _, name := range []string{"TestManyOpen1", "TestManyOpen2", "TestManyOpen3"} {
		cmd := exec.Command(os.Args[0], "-test.run", "^"+name+"$", "-test.v")
		cmd.Env = append(os.Environ(), manyEnv+"="+dir)
		out, err := cmd.CombinedOutput()
		for l := range strings.Lines(string(out)) {
			if strings.Contains(l, "many_test") {
				t.Log(strings.TrimSpace(l))
			}
		}
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
}

// TestManyOpen1 is the first process.
func TestManyOpen1(t *testing.T) {
	dir := os.Getenv(manyEnv)
	if dir == "" {
		t.Skip("part of TestManyOpenMails")
	}
	shelf, err := NewShelf(dir)
	if err != nil {
		t.Fatal(err)
	}
	tr := trace.New(trace.Options{Shelf: shelf}, &noSink{})
	now := time.Date(2026, 11, 10, 9, 0, 0, 0, time.UTC)
	line := manyFeeder(tr, &now)
	drop := func(key, data []byte) {}
	tick := func() {
		now = now.Add(time.Second)
		tr.Sync()
		tr.Changes(drop)
	}
	for i := range manyOpen { // a hundred a second
		if i%100 == 0 {
			tick()
		}
		manyLines(i, line)
	}
	rss, most := resident(t)
	t.Logf("%d mails came: %.0f MB, at most %.0f MB", manyOpen, rss, most)
	for i := range manyOpen { // tried again within an hour
		if i%56 == 0 {
			tick()
		}
		manyAgain(i*7919%manyOpen, line)
	}
	rss, most = resident(t)
	st := tr.Stats()
	t.Logf("tried again: %.0f MB, at most %.0f MB; %d mails aside, %d legs", rss, most, st.Aside, st.Legs)
	if st.Legs != 2*manyOpen || st.GivenUp() != 0 || tr.Err() != nil || st.ShelfErrors != 0 {
		t.Errorf("%+v, %v", st, tr.Err())
	}
	if most > 110 {
		t.Errorf("%.0f MB, at most 110", most)
	}
}

// TestManyOpen2 is the second process: it saves all at once.
func TestManyOpen2(t *testing.T) {
	dir := os.Getenv(manyEnv)
	if dir == "" {
		t.Skip("part of TestManyOpenMails")
	}
	shelf, err := NewShelf(dir)
	if err != nil {
		t.Fatal(err)
	}
	tr := trace.New(trace.Options{Shelf: shelf}, &noSink{})
	now := time.Date(2026, 11, 10, 9, 0, 0, 0, time.UTC)
	line := manyFeeder(tr, &now)
	for i := range manyOpen {
		if i%100 == 0 {
			now = now.Add(time.Second)
		}
		manyLines(i, line)
	}
	f, err := os.Create(filepath.Join(dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	n, size := 0, 0
	tr.Sync()
	tr.Changes(func(key, data []byte) {
		_ = binary.Write(w, binary.LittleEndian, [2]uint32{uint32(len(key)), uint32(len(data))})
		_, _ = w.Write(key)
		_, _ = w.Write(data)
		n, size = n+1, size+len(key)+len(data)
	})
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Logf("the state: %d values, %d MB", n, size>>20)
}

// TestManyOpen3 is the third process: it goes on with the state.
func TestManyOpen3(t *testing.T) {
	dir := os.Getenv(manyEnv)
	if dir == "" {
		t.Skip("part of TestManyOpenMails")
	}
	shelf, err := NewShelf(dir)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<20)
	begun := time.Now()
	sink := &noSink{}
	tr := trace.New(trace.Options{Shelf: shelf}, sink)
	var buf []byte
	for {
		var n [2]uint32
		if err := binary.Read(r, binary.LittleEndian, &n); err == io.EOF {
			break
		}
		buf = append(buf[:0], make([]byte, n[0]+n[1])...)
		if _, err := io.ReadFull(r, buf); err != nil {
			t.Fatal(err)
		}
		if err := tr.Restore(buf[:n[0]], buf[n[0]:]); err != nil {
			t.Fatal(err)
		}
	}
	read := time.Since(begun)
	now := time.Date(2026, 11, 10, 12, 0, 0, 0, time.UTC)
	line := manyFeeder(tr, &now)
	manyAgain(4711, line)
	tr.Sync()
	tr.Changes(func(key, data []byte) {})
	took := time.Since(begun)
	if cpu := cpuTime(); cpu < took { // others may use the machine
		took = cpu
	}
	rss, most := resident(t)
	st := tr.Stats()
	t.Logf("restored in %v, to the first row %v of processor: %.0f MB, at most %.0f MB; %d mails aside, %d legs", read, took, rss, most, st.Aside, st.Legs)
	if st.Legs != 2*manyOpen || sink.rows == 0 || tr.Err() != nil {
		t.Errorf("%+v, %d rows, %v", st, sink.rows, tr.Err())
	}
	if most > 100 {
		t.Errorf("%.0f MB, at most 100", most)
	}
	if took > 1500*time.Millisecond {
		t.Errorf("%v to the first row", took)
	}
}
