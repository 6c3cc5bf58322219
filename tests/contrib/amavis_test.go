package contrib

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/tests/peer"
)

// amavisConf is a configuration of amavisd for the test, without decoders,
// scanners and databases. A hook gives mails a score, as SpamAssassin would,
// and %s is the file of contrib.
const amavisConf = `use strict;
$daemon_user = 'amavis'; $daemon_group = 'amavis';
$mydomain = 'example.org'; $myhostname = 'mf1.example.org'; $max_servers = 1;
$MYHOME = '@DIR@'; $TEMPBASE = "$MYHOME/tmp"; $ENV{TMPDIR} = $TEMPBASE;
$QUARANTINEDIR = "$MYHOME/virusmails"; $db_home = "$MYHOME/db";
$lock_file = "$MYHOME/lock"; $pid_file = "$MYHOME/pid";
$enable_db = 0; $enable_zmq = 0; $enable_dkim_verification = 0;
@local_domains_maps = (['.example.net']); @mynetworks = qw(127.0.0.0/8);
$inet_socket_bind = '127.0.0.1'; $inet_socket_port = [@PORT@]; $unix_socketname = undef;
$forward_method = 'smtp:[127.0.0.1]:@SINK@'; $notify_method = $forward_method;
@bypass_virus_checks_maps = (1); @bypass_spam_checks_maps = (1); @decoders = ();
$sa_tag2_level_deflt = 5; $sa_kill_level_deflt = 6.9; $final_spam_destiny = D_DISCARD;
$spam_quarantine_method = 'local:spam-%m';
include_config_files('@DIR@/etc/60-rolmail');
package Amavis::Custom;
use strict;
BEGIN { no warnings 'redefine' }
sub new { my($class, $conn, $msginfo) = @_; bless {}, $class }
sub checks {
  my($self, $conn, $msginfo) = @_;
  for my $r (@{$msginfo->per_recip_data}) {
    my $l = $r->recip_addr =~ /^spam/ ? 12.5 : 1.399;
    $r->spam_level($l);
    $r->spam_tests([\ 'TEST_ONE=1,TEST_TWO=0.399']);
    Amavis::Util::add_entropy('x');
    if ($l > 6.9) { $r->add_contents_category(Amavis::Conf::CC_SPAM(), 0) }
  }
  if ($msginfo->per_recip_data->[0]->spam_level > 6.9) { $msginfo->add_contents_category(Amavis::Conf::CC_SPAM(), 0) }
}
1;
`

// inPrivateDev runs a command with a /dev of its own, in which /dev/log is the
// test's socket: nothing of the host's is touched.
const inPrivateDev = `set -e
mount -t tmpfs rol "$1"
for d in null zero full random urandom; do touch "$1/$d"; mount --bind "/dev/$d" "$1/$d"; done
ln -s /proc/self/fd "$1/fd"
ln -s "$2" "$1/log"
mount --move "$1" /dev 2>/dev/null || mount --rbind "$1" /dev
shift 2
exec "$@"
`

// sink is an SMTP server that takes every mail and says that it queued it.
func sink(t *testing.T) (port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprint(c, "220 sink ESMTP\r\n")
				data := false
				for s := bufio.NewScanner(c); s.Scan(); {
					line := strings.ToUpper(s.Text())
					switch {
					case data && line == ".":
						data = false
						fmt.Fprint(c, "250 2.0.0 Ok: queued as 4PbC4x469Jz3tBr\r\n")
					case data:
					case strings.HasPrefix(line, "DATA"):
						data = true
						fmt.Fprint(c, "354 go on\r\n")
					case strings.HasPrefix(line, "QUIT"):
						fmt.Fprint(c, "221 2.0.0 bye\r\n")
						return
					default:
						fmt.Fprint(c, "250 2.0.0 Ok\r\n")
					}
				}
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// startAmavis starts amavisd and returns its port and a function that waits
// for the next line with a verdict.
func startAmavis(t *testing.T) (port int, verdict func() string) {
	t.Helper()
	amavisd := peer.Need(t, "amavisd")
	if os.Geteuid() != 0 {
		peer.Missing(t, "only root may start amavisd")
	}
	dir, err := os.MkdirTemp("", "rol-am-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for _, d := range []string{"tmp", "virusmails", "db", "dev"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	port = peer.FreePort(t)
	write(t, filepath.Join(dir, "etc/60-rolmail"), contribFile(t, "amavis/60-rolmail"))
	conf := write(t, filepath.Join(dir, "etc/conf"), strings.NewReplacer("@DIR@", dir, "@PORT@", fmt.Sprint(port),
		"@SINK@", fmt.Sprint(sink(t))).Replace(amavisConf))
	socket := filepath.Join(dir, "log")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	// amavisd wants its directories for itself, and its settings to be root's.
	own := exec.Command("sh", "-c", `chown -R amavis:amavis "$0" && chown -R root "$0/etc" && chmod -R a+rX "$0/etc" && chmod 777 "$0/log"`, dir)
	if out, err := own.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	start(t, nil, peer.Need(t, "unshare"), "-m", "--propagation", "private", "--pid", "--mount-proc", "--kill-child", "-f",
		"sh", "-c", inPrivateDev, "sh", filepath.Join(dir, "dev"), socket, amavisd, "-c", conf, "foreground")
	buf := make([]byte, 1<<16)
	return port, func() string {
		t.Helper()
		if err := l.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		for {
			n, err := l.Read(buf)
			if err != nil {
				t.Fatal("amavisd logs nothing: ", err)
			}
			line := string(buf[:n])
			if strings.Contains(line, ") Passed ") || strings.Contains(line, ") Blocked ") {
				// <21>Nov 25 04:00:00 amavis[1]: text: the daemon puts time and host in its own form
				_, rest, _ := strings.Cut(line, ">")
				return "2026-11-25T04:00:00.123456+00:00 mf1 " + rest[len(time.Stamp)+1:]
			}
		}
	}
}

// send hands amavisd a mail as Postfix does, with the queue id by XFORWARD.
func send(t *testing.T, port int, rcpts []string, subject string) {
	t.Helper()
	var c net.Conn
	waitFor(t, "amavisd", func() (ok bool) {
		var err error
		c, err = net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		return err == nil
	})
	defer c.Close()
	r := bufio.NewReader(c)
	say := func(line string, want byte) {
		t.Helper()
		if line != "" {
			fmt.Fprint(c, line+"\r\n")
		}
		for {
			answer, err := r.ReadString('\n')
			if err != nil || answer[0] != want {
				t.Fatalf("%.60q: %q, %v", line, answer, err)
			}
			if answer[3] == ' ' {
				return
			}
		}
	}
	say("", '2')
	say("EHLO mx1.example.com", '2')
	say("XFORWARD NAME=pc.example.com ADDR=192.0.2.7 PORT=4711 PROTO=ESMTP HELO=pc IDENT=4PbC4x0001z3tBr", '2')
	say("MAIL FROM:<a@example.com>", '2')
	for _, to := range rcpts {
		say("RCPT TO:<"+to+">", '2')
	}
	say("DATA", '3')
	say("From: a@example.com\r\nSubject: "+subject+"\r\nMessage-ID: <m1@example.com>\r\nDate: Wed, 25 Nov 2026 04:00:00 +0000\r\n\r\nhello\r\n.", '2')
	say("QUIT", '2')
}

// Real amavisd with this template writes one line a mail, however long, and
// the parser finds every field in it.
func TestAmavisTemplate(t *testing.T) {
	port, verdict := startAmavis(t)
	many := make([]string, 60)
	for i := range many {
		many[i] = fmt.Sprintf("recipient-with-a-long-name-%02d@example.net", i)
	}
	for _, tt := range []struct {
		name, subject, verdict string
		rcpts                  []string
		score                  float64
	}{
		{"clean", `Re: "quoted", Hits: 9, queued_as: X`, "CLEAN", []string{"b@example.net"}, 1.399},
		{"many recipients", "to many", "CLEAN", many, 1.399},
		{"spam", "buy", "SPAM", []string{"spam@example.net"}, 12.5},
	} {
		send(t, port, tt.rcpts, tt.subject)
		line := verdict()
		var ev maillog.Event
		if c := maillog.NewParser(maillog.Options{}).Parse([]byte(line), &ev); c != maillog.Used || ev.Kind != maillog.KindAmavis {
			t.Fatalf("%s: class %d kind %d: %q", tt.name, c, ev.Kind, line)
		}
		sc := &ev.Scan
		if string(sc.Verdict) != tt.verdict || sc.Score != tt.score || sc.Passed == (tt.verdict == "SPAM") {
			t.Errorf("%s: verdict %q, score %v, passed %v", tt.name, sc.Verdict, sc.Score, sc.Passed)
		}
		if string(sc.QueueID) != "4PbC4x0001z3tBr" || string(ev.MsgID) != "m1@example.com" || len(sc.MailID) != 12 {
			t.Errorf("%s: queue id %q, message id %q, mail id %q", tt.name, sc.QueueID, ev.MsgID, sc.MailID)
		}
		if string(ev.ClientIP) != "192.0.2.7" || string(ev.Sender) != "a@example.com" || ev.Size < 50 || sc.MS < 0 || len(sc.Actions) == 0 {
			t.Errorf("%s: client %q, sender %q, size %d, %d ms, actions %q", tt.name, ev.ClientIP, ev.Sender, ev.Size, sc.MS, sc.Actions)
		}
		if want := strings.ReplaceAll(tt.subject, `"`, `""`); string(ev.Subject) != want {
			t.Errorf("%s: subject %q, want %q", tt.name, ev.Subject, want)
		}
		if got := string(sc.Rcpts); got != "<"+strings.Join(tt.rcpts, ">,<")+">" {
			t.Errorf("%s: recipients %q", tt.name, got)
		}
		if queued := string(sc.QueuedAs) == "4PbC4x469Jz3tBr"; queued != sc.Passed {
			t.Errorf("%s: queued as %q", tt.name, sc.QueuedAs)
		}
		if quarantined := len(sc.Quarantine) > 0; quarantined == sc.Passed {
			t.Errorf("%s: quarantine %q", tt.name, sc.Quarantine)
		}
		if !strings.Contains(line, ", Tests: [TEST_ONE=1,TEST_TWO=0.399], ") {
			t.Errorf("%s: no tests in %q", tt.name, line)
		}
		if t.Failed() {
			t.Fatal(line)
		}
	}
}
