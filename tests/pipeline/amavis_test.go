package pipeline

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rolmail/rolmail/tests/peer"
)

// amavisConf keeps what is spam, infected or of a forbidden name, passes the
// rest on to the outgoing server, and logs to syslog.
const amavisConf = `use strict;
$max_servers = 3; $daemon_user='amavis'; $daemon_group='amavis';
$mydomain='lab.example'; $myhostname='mf.lab.example';
$MYHOME='@DIR@'; $TEMPBASE="$MYHOME/tmp"; $ENV{TMPDIR}=$TEMPBASE;
$QUARANTINEDIR="$MYHOME/quarantine"; $db_home="$MYHOME/db"; $lock_file="$MYHOME/lock"; $pid_file="$MYHOME/pid";
$log_level=1; $DO_SYSLOG=1; $syslog_ident='mf'; $syslog_facility='mail';
$enable_db=0; $enable_zmq=0; $nanny_details_level=0;
@local_domains_maps=(['.kunde-a.example','.kunde-b.example','.kunde-c.example']);
@mynetworks=qw(127.0.0.2/32);
$inet_socket_port=[@IN@]; $inet_socket_bind='127.0.0.1';
$forward_method='smtp:[127.0.0.1]:@OUT@'; $notify_method=$forward_method;
$virus_admin=undef; $banned_admin=undef; $spam_admin=undef; $mailfrom_notify_admin=undef;
$virus_quarantine_method='local:virus-%m'; $spam_quarantine_method='local:spam-%m';
$banned_files_quarantine_method='local:banned-%m'; $bad_header_quarantine_method=undef;
$virus_quarantine_to='virus-quarantine'; $banned_quarantine_to='banned-quarantine'; $spam_quarantine_to='spam-quarantine';
$final_spam_destiny=D_DISCARD; $final_banned_destiny=D_DISCARD; $final_virus_destiny=D_DISCARD; $final_bad_header_destiny=D_PASS;
$warnvirussender=0; $warnbannedsender=0;
$sa_tag_level_deflt=-999; $sa_tag2_level_deflt=5; $sa_kill_level_deflt=6.9;
@spam_scanners=(['spamd','Amavis::SpamControl::SpamdClient']);
@av_scanners=(['clamd',\&ask_daemon,["CONTSCAN {}\n",'@CLAMD@'],qr/\bOK$/m,qr/\bFOUND$/m,qr/^.*?: (.*) FOUND$/m]);
@av_scanners_backup=();
$banned_filename_re=new_RE(qr'.\.(exe|vbs|pif|scr|bat|cmd|com|cpl)$'i);
$enable_dkim_verification=0; $enable_dkim_signing=0;
@decoders=(['mail',\&do_mime_decode]);
1;
`

// amavis is an amavisd in the foreground.
type amavis struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

func startAmavis(t testing.TB, on *machine, dir string) *amavis {
	t.Helper()
	path := peer.Need(t, "amavisd")
	for _, d := range []string{"", "tmp", "quarantine", "db"} {
		d = filepath.Join(dir, d)
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		chown(t, d, "amavis")
	}
	conf := dir + ".conf" // not in a directory that amavisd may write
	text := strings.NewReplacer("@DIR@", dir, "@IN@", fmt.Sprint(amavisPort), "@OUT@", fmt.Sprint(outPort),
		"@CLAMD@", clamdAddr).Replace(amavisConf)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(dir + ".output")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	a := &amavis{cmd: on.command(path, "-c", conf, "foreground"), exited: make(chan struct{})}
	a.cmd.Dir, a.cmd.Stdout, a.cmd.Stderr = dir, out, out
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = a.cmd.Wait()
		close(a.exited)
	}()
	waitPort(t, fmt.Sprintf("127.0.0.1:%d", amavisPort), a.exited, out.Name())
	return a
}

func (a *amavis) stop() {
	_ = a.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-a.exited:
	case <-time.After(5 * time.Second):
		_ = a.cmd.Process.Kill()
		<-a.exited
	}
}

// waitPort waits until a port answers; a program that has exited says why in
// its output.
func waitPort(t testing.TB, addr string, exited <-chan struct{}, output string) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); ; {
		if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-exited:
			text, _ := os.ReadFile(output)
			t.Fatalf("nothing will listen at %s:\n%s", addr, text)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing listens at %s", addr)
		}
	}
}
