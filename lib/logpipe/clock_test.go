package logpipe

import (
	"sync/atomic"
	"testing"
	"time"
)

// TestTheClockIsStepped steps the machine's clock, and with it the times in the
// log, an hour forth and two back, in the middle of mails and over a restart:
// each mail has its one row, whole.
func TestTheClockIsStepped(t *testing.T) {
	var offset atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	change := func(s *Service) { s.Now = now }
	l := newLive(t, t.TempDir(), change)
	db := l.DBs[0]
	n := 0
	some := func() {
		for range 5 {
			n++
			l.write(mail(n, now())...)
		}
	}
	for _, step := range []time.Duration{0, time.Hour, -time.Hour, 0, time.Hour, 0} {
		some()
		n++
		m := mail(n, now())
		l.write(m[:4]...)
		until(t, "the rows of before the step", func() bool { return len(rowsOf(t, db)) == n })
		offset.Store(int64(step))
		late := mail(n, now()) // the end of the mail bears the new time
		l.write(m[4], late[5], late[6])
		some()
		if step < 0 {
			l.stop()
			l = newLive(t, l.dir, change)
		}
		until(t, "all rows", func() bool { return sent(rowsOf(t, db)) == n })
		r, err := Ask(t.Context(), l.Spool)
		if err != nil || r.Degraded != nil {
			t.Errorf("after a step of %v: %+v, %v", step, r, err)
		}
	}
	l.stop()
	rows := rowsOf(t, db)
	for _, r := range rows {
		if r.Lines != 5 || !r.Complete {
			t.Errorf("%s: %d lines, complete %v, %s", r.QIDIn, r.Lines, r.Complete, r.Evidence)
		}
	}
	if len(rows) != n {
		t.Errorf("%d rows of %d mails", len(rows), n)
	}
}
