package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store/storetest"
	"github.com/rolmail/rolmail/lib/mysqlpool"
	"github.com/rolmail/rolmail/lib/sysexits"
	"github.com/rolmail/rolmail/tests/peer"
)

// cutter passes packets to a server and its answers back, and cuts one
// connection at a packet of choice.
type cutter struct {
	server string
	l      net.Listener

	mu     sync.Mutex
	seen   int                  // packets from clients
	cutAt  int                  // the one at which the connection is cut; 0: none
	after  bool                 // when the server has answered it, and not before it gets it
	before func(payload []byte) // called with each packet, if set
	cut    bool                 // it happened
}

func newCutter(t *testing.T, server string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{server: server, l: l}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go c.serve(client)
		}
	}()
	return c
}

// plan sets the next cut and counts from here.
func (c *cutter) plan(at int, after bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen, c.cutAt, c.after, c.cut = 0, at, after, false
}

// look sets what is called with each packet before the server gets it.
func (c *cutter) look(f func(payload []byte)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.before = f
}

func (c *cutter) happened() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut
}

func (c *cutter) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", c.server)
	if err != nil {
		return
	}
	defer server.Close()
	deaf := make(chan struct{}) // answers are not passed on any more
	answered := make(chan struct{})
	go func() {
		defer client.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := server.Read(buf)
			select {
			case <-deaf:
				close(answered)
				return
			default:
			}
			if err != nil {
				return
			}
			if _, err := client.Write(buf[:n]); err != nil {
				return
			}
		}
	}()
	for {
		p, err := packet(client)
		if err != nil {
			return
		}
		c.mu.Lock()
		if len(p) != 5 || p[4] != 1 { // not COM_QUIT, which comes when it likes
			c.seen++
		}
		now, after, before := c.seen == c.cutAt && !c.cut, c.after, c.before
		c.cut = c.cut || now
		c.mu.Unlock()
		if now && !after {
			return
		}
		if before != nil {
			before(p[4:])
		}
		if now {
			close(deaf)
			// Of LOAD DATA's packets only the last one is answered.
			_ = server.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		}
		if _, err := server.Write(p); err != nil {
			return
		}
		if now {
			<-answered
			return
		}
	}
}

func packet(r io.Reader) ([]byte, error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(append(bytes.Clone(head[:3]), 0))
	p := append(head, make([]byte, n)...)
	_, err := io.ReadFull(r, p[4:])
	return p, err
}

// through is cf with the server's address replaced by the cutter's.
func (c *cutter) through(t *testing.T, cf string) string {
	t.Helper()
	text, err := os.ReadFile(cf)
	if err != nil {
		t.Fatal(err)
	}
	path := cf + ".cut"
	text = bytes.ReplaceAll(text, []byte(c.server), []byte(c.l.Addr().String()))
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func hostPort(m *peer.MariaDB) string { return fmt.Sprintf("127.0.0.1:%d", m.Port) }

// impatient are timeouts for servers that hang.
var impatient = mysqlpool.Options{Dial: time.Second, Login: time.Second, Read: time.Second}

func openImpatient(t *testing.T, cf string) *mysqlDB {
	t.Helper()
	db, err := openMySQLWith(cf, ReadWrite, impatient)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.close() })
	return db
}

// small is the n-th of a sequence of batches, whose rows, position and state
// all say n.
func small(n int64) *Batch {
	return &Batch{
		Rows:      storetest.New(uint64(n)+1, noon+n*60_000, 1000).Rows(loadFrom + 8),
		Positions: []Position{{Prefix: [32]byte{9}, Offset: n + 1}},
		State:     []StateChange{{[]byte("n"), fmt.Append(nil, n+1)}, {fmt.Appendf(nil, "s%d", n%5), fmt.Append(nil, n)}},
	}
}

// undisturbed is what a database holds after n batches, without the index
// definitions, which depend on finish.
func undisturbed(t *testing.T, n int64, batch func(int64) *Batch) string {
	t.Helper()
	db := openMy(t, newMy(t))
	for i := range n {
		commitMy(t, db, batch(i))
	}
	return contents(t, db)
}

// contents is all that a database holds: rows, positions, state, changes and
// the number of commits.
func contents(t *testing.T, db *mysqlDB) string {
	t.Helper()
	m, err := db.readMark(t.Context(), db.w.c)
	if err != nil {
		t.Fatal(err)
	}
	var keep []string
	for line := range strings.SplitSeq(dumpMySQL(t, db), "\n") {
		if !strings.Contains(line, "CREATE TABLE") {
			keep = append(keep, line)
		}
	}
	return fmt.Sprintf("%d commits\n%s", m.seq, strings.Join(keep, "\n"))
}

func wantSame(t *testing.T, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			t.Fatalf("line %d of %d, %d: has\n%.300s\nwant\n%.300s", i, len(a), len(b), a[i], b[i])
		}
	}
	t.Fatalf("%d lines, want %d", len(a), len(b))
}

// The connection is cut at each packet in turn, before the server gets it and
// after it has answered: each batch is there once.
func TestMySQLCut(t *testing.T) {
	m := mariaDB(t)
	cf := newMy(t)
	c := newCutter(t, hostPort(m))
	db := openMy(t, c.through(t, cf))
	commitMy(t, db, small(0))
	c.look(consistent(t, cf))
	n := int64(1)
	for _, connecting := range []bool{false, true} {
		for _, after := range []bool{false, true} {
			for at, missed := 1, 0; missed < 3; at++ {
				if connecting {
					db.w.drop()
				}
				c.plan(at, after)
				if err := db.commit(t.Context(), small(n)); err != nil {
					t.Fatalf("cut at packet %d, after %t, connecting %t: %v", at, after, connecting, err)
				}
				n++
				if !c.happened() {
					missed++ // the commit has fewer packets, but that of a new day
				}
			}
		}
	}
	if n < 40 {
		t.Errorf("%d batches only", n)
	}
	c.plan(0, false)
	c.look(nil)
	wantSame(t, contents(t, db), undisturbed(t, n, small))
}

// consistent looks, from outside, whether rows, position, state and the number
// of commits agree.
func consistent(t *testing.T, cf string) func([]byte) {
	t.Helper()
	other := openOther(t, cf)
	rows := len(small(0).Rows)
	query := fmt.Sprintf("SELECT (SELECT COUNT(*) FROM %s), byte_offset, data, value FROM maillog_positions, maillog_state, maillog_meta "+
		"WHERE k = 'n' AND maillog_meta.name = 'commit'", dayTable(flat.Day(noon)))
	var one sync.Mutex // connections that end overlap with those that begin
	return func([]byte) {
		one.Lock()
		defer one.Unlock()
		var count, offset, n, commits int
		err := other.QueryRowContext(t.Context(), query).Scan(&count, &offset, &n, &commits)
		if err != nil && !t.Failed() {
			t.Error(err)
		}
		if err == nil && count != offset*rows || n != offset || commits != offset {
			t.Errorf("%d rows, position %d, state %d, %d commits", count, offset, n, commits)
		}
	}
}

// When nobody knows whether a commit was made and its caller comes with
// another batch, both are there.
func TestMySQLUnknownCommit(t *testing.T) {
	m := mariaDB(t)
	cf := newMy(t)
	c := newCutter(t, hostPort(m))
	db := openMy(t, c.through(t, cf))
	for n := range int64(4) {
		ctx, cancel := context.WithCancelCause(t.Context())
		enough := errors.New("enough")
		c.look(func(p []byte) {
			if string(p) == "\x03COMMIT" {
				cancel(enough) // as its answer is on the way
			}
		})
		if err := db.commit(ctx, small(2*n)); err != nil && !errors.Is(err, enough) {
			t.Fatal(err)
		}
		c.look(nil)
		both := small(2 * n)
		next := small(2*n + 1)
		both.Rows = append(both.Rows, next.Rows...)
		both.Positions, both.State = next.Positions, append(both.State, next.State...)
		commitMy(t, db, both)
	}
	got := loaded(t, &DB{b: db})
	if !strings.Contains(got, `"6e" 38`) && !strings.Contains(got, `"n" 38`) || !strings.Contains(got, "Offset:8") {
		t.Error(got)
	}
	for n := range int64(8) {
		wantRows(t, db, small(n).Rows)
	}
}

// The server is killed at any moment and started again, while batches are
// committed: in the end everything is as if nothing had happened.
func TestMySQLKilled(t *testing.T) {
	kills := 20
	if testing.Short() {
		kills = 4
	}
	m := peer.StartMariaDB(t)
	db := openImpatient(t, m.CF("killed"))
	batch := func(n int64) *Batch { return numbered(n) }
	stop := make(chan struct{})
	failed := make(chan error, 1)
	n, said := int64(0), 0
	go func() {
		defer close(failed)
		for {
			select {
			case <-stop:
				return
			default:
			}
			err := db.commit(t.Context(), batch(n))
			switch {
			case err == nil:
				n++
			case sysexits.Status(err) == sysexits.Unavailable || sysexits.Status(err) == sysexits.TryAgain:
				said++
			default:
				failed <- err
				return
			}
		}
	}()
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	for range kills {
		moment := time.NewTimer(time.Duration(rng.IntN(300)) * time.Millisecond)
		select {
		case <-moment.C:
		case err := <-failed:
			t.Fatal(err)
		}
		m.Kill()
		m.Start()
	}
	close(stop)
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	if n < int64(kills) {
		t.Errorf("%d batches during %d kills", n, kills)
	}
	t.Logf("%d batches, %d kills, %d calls failed", n, kills, said)
	if err := db.commit(t.Context(), batch(n)); err != nil {
		t.Fatal(err)
	}
	wantSameButCommits(t, contents(t, db), undisturbed(t, n+1, batch))
}

// The server hangs while a COMMIT, or rows, are on the way to it, for longer
// than anybody waits, and goes on later.
func TestMySQLFrozen(t *testing.T) {
	m := peer.StartMariaDB(t)
	cf := m.CF("frozen")
	c := newCutter(t, hostPort(m))
	db := openImpatient(t, c.through(t, cf))
	n := int64(0)
	for _, word := range []string{"\x03COMMIT", "\x03LOAD DATA", "\x03COMMIT"} {
		commitMy(t, db, small(n))
		n++
		var once sync.Once
		c.look(func(p []byte) {
			if bytes.HasPrefix(p, []byte(word)) {
				once.Do(func() { freeze(t, m) })
			}
		})
		err := db.commit(t.Context(), small(n))
		if err == nil || !mysqlpool.Lost(err) {
			t.Fatalf("batch %d, %s: %v", n, word[1:], err)
		}
		m.Thaw()
		commitMy(t, db, small(n))
		n++
	}
	wantSameButCommits(t, contents(t, db), undisturbedOn(t, m, n))
}

// wantSameButCommits does without the number of commits: one that was made
// after all, and whose caller came again, counts twice. Nothing else shows it.
func wantSameButCommits(t *testing.T, got, want string) {
	t.Helper()
	_, got, _ = strings.Cut(got, "\n")
	_, want, _ = strings.Cut(want, "\n")
	wantSame(t, got, want)
}

// freeze stops the server, all its threads.
func freeze(t *testing.T, m *peer.MariaDB) {
	pid, err := os.ReadFile(m.Dir + "/pid")
	if err != nil {
		t.Error(err)
	}
	m.Freeze()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		threads, err := filepath.Glob("/proc/" + strings.TrimSpace(string(pid)) + "/task/*/stat")
		running := err != nil || len(threads) == 0
		for _, name := range threads {
			stat, err := os.ReadFile(name)
			running = running || err == nil && !bytes.Contains(stat, []byte(") T "))
		}
		if !running {
			return
		}
		if time.Now().After(deadline) {
			t.Error("the server goes on")
			return
		}
	}
}

func undisturbedOn(t *testing.T, m *peer.MariaDB, n int64) string {
	t.Helper()
	db := openMy(t, m.CF("undisturbed"))
	for i := range n {
		commitMy(t, db, small(i))
	}
	return contents(t, db)
}

// A second writer is told so. Where the lock did not help, as when the first
// one's session was lost, the one who comes second gets ErrMoved and goes on
// after Load.
func TestMySQLSecondWriter(t *testing.T) {
	m := mariaDB(t)
	cf := newMy(t)
	first := openMy(t, cf)
	_, err := openMySQL(cf, ReadWrite)
	if err == nil || sysexits.Status(err) != sysexits.TryAgain || !strings.Contains(err.Error(), "another rol-logpipe is writing") {
		t.Fatal(err)
	}
	commitMy(t, first, small(0))
	m.SQL(fmt.Sprintf("KILL CONNECTION %d", sessionID(t, first)))
	second := openMy(t, cf)
	commitMy(t, first, small(1)) // reconnects
	before := contents(t, first)
	if err := second.commit(t.Context(), small(7)); !errors.Is(err, ErrMoved) || sysexits.Status(err) != sysexits.TryAgain {
		t.Fatal(err)
	}
	if err := second.commit(t.Context(), small(7)); !errors.Is(err, ErrMoved) {
		t.Fatalf("the second time: %v", err)
	}
	wantSame(t, contents(t, first), before)
	pos, err := second.load(t.Context(), func(_, _ []byte) error { return nil })
	if err != nil || len(pos) != 1 || pos[0].Offset != 2 {
		t.Fatal(pos, err)
	}
	commitMy(t, second, small(2))
	if err := first.commit(t.Context(), small(9)); !errors.Is(err, ErrMoved) {
		t.Fatal(err)
	}
	wantSame(t, contents(t, second), undisturbed(t, 3, small))
}

func sessionID(t *testing.T, db *mysqlDB) (id int64) {
	t.Helper()
	if err := db.w.c.QueryRowContext(t.Context(), "SELECT CONNECTION_ID()").Scan(&id); err != nil {
		t.Fatal(err)
	}
	return id
}

// Two writers at the same time: one wins, and what the other has written
// before that is whole.
func TestMySQLTwoWritersAtOnce(t *testing.T) {
	m := mariaDB(t)
	cf := newMy(t)
	a := openMy(t, cf)
	commitMy(t, a, small(0))
	m.SQL(fmt.Sprintf("KILL CONNECTION %d", sessionID(t, a)))
	b := openMy(t, cf)
	var wg sync.WaitGroup
	var did [2]int64
	var errs [2]error
	for i, db := range []*mysqlDB{a, b} {
		wg.Go(func() {
			for did[i] < 20 && errs[i] == nil {
				batch := small(did[i])
				for _, r := range batch.Rows {
					r.ID[15] = byte(i)
					r.HostIn = fmt.Sprint("writer", i)
				}
				if errs[i] = db.commit(t.Context(), batch); errs[i] == nil {
					did[i]++
				}
			}
		})
	}
	wg.Wait()
	if (errs[0] == nil) == (errs[1] == nil) || !errors.Is(errors.Join(errs[:]...), ErrMoved) {
		t.Fatal(errs)
	}
	mark, err := a.readMark(t.Context(), a.w.c)
	if err != nil || mark.seq != 1+did[0]+did[1] {
		t.Errorf("%d commits, the writers made %d and %d, %v", mark.seq, did[0], did[1], err)
	}
	for i := range did {
		n := 0
		for _, table := range []string{flat.Day(noon), flat.Day(noon + dayMillis)} {
			if a.w.days[table] == nil && b.w.days[table] == nil {
				continue
			}
			var rows int
			err := a.w.c.QueryRowContext(t.Context(), fmt.Sprintf("SELECT COUNT(*) FROM %s WHERE host_in = 'writer%d'", dayTable(table), i)).Scan(&rows)
			if err != nil {
				t.Fatal(err)
			}
			n += rows
		}
		if want := int(did[i]) * len(small(0).Rows); n != want {
			t.Errorf("writer %d: %d rows, want %d", i, n, want)
		}
	}
}
