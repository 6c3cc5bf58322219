package pipeline

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rolmail/rolmail/tests/peer"
)

// pause waits, and reports whether to go on.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// between is a random time.
func (s *scenario) between(least, most time.Duration) time.Duration {
	return least + time.Duration(s.rng.Int64N(int64(most-least)))
}

// together lets several disturbances go on at once.
func together(all ...disturbance) disturbance {
	return func(ctx context.Context, s *scenario) {
		done := make(chan struct{})
		for _, d := range all[1:] {
			go func() {
				d(ctx, s)
				done <- struct{}{}
			}()
		}
		all[0](ctx, s)
		for range all[1:] {
			<-done
		}
	}
}

// killLogpipe kills rol-logpipe again and again, now and then while it is still
// starting.
func killLogpipe(ctx context.Context, s *scenario) {
	for pause(ctx, s.between(20*time.Millisecond, 2500*time.Millisecond)) {
		s.logpipe.kill()
	}
	s.note("rol-logpipe killed %d times", s.logpipe.kills)
}

// killMariaDB kills mariadbd, leaves it dead for a while, and starts it again.
func killMariaDB(ctx context.Context, s *scenario) {
	n := 0
	for pause(ctx, s.between(time.Second, 3*time.Second)) {
		s.maria.Kill()
		n++
		pause(ctx, s.between(0, 3*time.Second))
		s.maria.Start()
	}
	s.note("mariadbd killed %d times", n)
}

// freezeMariaDB stops mariadbd for 15 s, so that it neither answers nor hangs
// up.
func freezeMariaDB(ctx context.Context, s *scenario) {
	pause(ctx, s.between(time.Second, 2*time.Second))
	s.maria.Freeze()
	pause(context.Background(), 15*time.Second)
	s.maria.Thaw()
	s.note("mariadbd frozen for 15 s")
}

// restartRsyslog ends rsyslogd in good order and starts it again.
func restartRsyslog(ctx context.Context, s *scenario) {
	n := 0
	for pause(ctx, s.between(500*time.Millisecond, 3*time.Second)) {
		s.syslog.stop()
		n++
		pause(ctx, s.between(0, 500*time.Millisecond))
		s.syslog.start()
	}
	s.note("rsyslogd restarted %d times", n)
}

// rotations are the two ways of logrotate. A log that is copied and then
// truncated loses what is written in between, whoever reads it; so there
// rsyslogd has to stand still for that moment, with all its threads.
var rotations = map[string]string{
	"rename": `create
postrotate
	kill -HUP $(cat @PID@)
endscript`,
	"copytruncate": `copytruncate
prerotate
	kill -STOP $(cat @PID@)
	for s in /proc/$(cat @PID@)/task/*/status; do until grep -q '^State:.T' $s; do :; done; done
endscript
postrotate
	kill -CONT $(cat @PID@)
endscript`,
}

// rotate rotates the log by logrotate.
func rotate(how string) disturbance {
	return func(ctx context.Context, s *scenario) {
		conf := filepath.Join(s.dir, "logrotate.conf")
		text := fmt.Sprintf("%s/mail.log {\nrotate 100\nmissingok\nnocompress\n%s\n}\n", s.dir,
			strings.ReplaceAll(rotations[how], "@PID@", s.syslog.pidFile))
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			s.t.Error(err)
			return
		}
		n := 0
		for pause(ctx, s.between(200*time.Millisecond, 2*time.Second)) {
			out, err := exec.Command(peer.Need(s.t, "logrotate"), "-f", "-s", conf+".state", conf).CombinedOutput()
			if err != nil {
				s.t.Errorf("logrotate: %v\n%s", err, out)
				return
			}
			n++
		}
		s.note("rotated %d times by %s", n, how)
	}
}

// mountSpool makes a small file system for the spool.
func mountSpool(t testing.TB, dir, size string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// fillSpool fills the spool's file system to the last byte for a while.
func fillSpool(ctx context.Context, s *scenario) {
	pause(ctx, s.between(time.Second, 2*time.Second))
	name := filepath.Join(s.dir, "spool", "ballast")
	f, err := os.Create(name)
	if err != nil {
		s.t.Error(err)
		return
	}
	size, full := 0, false
	block := make([]byte, 4096)
	for deadline := time.Now().Add(12 * time.Second); time.Now().Before(deadline); pause(context.Background(), 20*time.Millisecond) {
		for {
			n, err := f.Write(block)
			size += n
			if err != nil {
				full = true
				break
			}
		}
	}
	_ = f.Close()
	if err := os.Remove(name); err != nil || !full {
		s.t.Errorf("the spool was not full: %v", err)
	}
	s.note("no room for 12 s, %d bytes of ballast", size)
}

// loseDatabase lets MariaDB die for good; the other database must not care.
func loseDatabase(ctx context.Context, s *scenario) {
	pause(ctx, s.between(2*time.Second, 4*time.Second))
	s.maria.Kill()
	s.t.Cleanup(s.maria.Start)
	for _, db := range s.dbs {
		if strings.HasPrefix(db, "mysql:") {
			s.dead[db] = true
		}
	}
	s.note("mariadbd is dead")
}
