package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store/lite"
	"github.com/rolmail/rolmail/lib/maillog/store/storetest"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// roleEnv makes this test binary another process of a test.
const roleEnv = "ROL_STORE_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		if err := play(role, os.Args[1]); err != nil {
			fmt.Println(err)
			os.Exit(sysexits.Status(err))
		}
		os.Exit(0)
	}
	code := m.Run()
	server.tb.end()
	os.Exit(code)
}

func play(role, path string) error {
	ctx := context.Background()
	switch role {
	case "write": // until killed
		db, err := Open(path, ReadWrite)
		if err != nil {
			return err
		}
		for n := int64(0); ; n++ {
			if err := db.Commit(ctx, numbered(n)); err != nil {
				return err
			}
			fmt.Println(n)
			if n%7 == 6 {
				if err := db.Finish(ctx); err != nil {
					return err
				}
			}
		}
	case "count":
		db, err := Open(path, ReadOnly)
		if err != nil {
			return err
		}
		defer db.Close()
		n := 0
		res, err := db.Search(ctx, &Query{})
		if err != nil {
			return err
		}
		for _, err := range res.All() {
			if err != nil {
				return err
			}
			n++
		}
		fmt.Println(n, "rows")
		return nil
	}
	return fmt.Errorf("no role %q", role)
}

const batchRows = 400 / scale

// numbered is the n-th batch: its rows, position and state all say n.
func numbered(n int64) *Batch {
	b := &Batch{
		Rows:      storetest.New(uint64(n)+1, noon+n*3_600_000, 1000).Rows(batchRows),
		Positions: []Position{{Prefix: [32]byte{9}, Offset: n + 1}},
		State:     []StateChange{{[]byte("n"), fmt.Append(nil, n+1)}},
	}
	return b
}

func role(t *testing.T, role, path string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, path)
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	return cmd
}

// Killed at any moment, the database holds whole batches, position and state
// agree with the rows, and the next run completes what was begun.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "maillog.db")
	done := int64(0)
	for round := range 6 / min(scale, 2) {
		cmd := role(t, "write", path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for said := 0; said < 1+round*3 && lines.Scan(); said++ {
		}
		time.Sleep(time.Duration(round) * 3 * time.Millisecond) // somewhere in the next batch
		_ = cmd.Process.Kill()
		_ = cmd.Wait()

		ro := openAt(t, path, ReadOnly)
		before := len(find(t, ro, &Query{}))
		ro.Close()
		db := openAt(t, path, ReadWrite)
		state := ""
		pos, err := db.Load(t.Context(), func(_, data []byte) error { state = string(data); return nil })
		if err != nil || len(pos) != 1 {
			t.Fatalf("%v, %v", pos, err)
		}
		n := pos[0].Offset
		done = max(done, n)
		rows := find(t, db, &Query{})
		if int64(len(rows)) != done*batchRows || before != len(rows) || state != fmt.Sprint(n) {
			t.Errorf("round %d: %d rows, read-only %d, position %d, state %s", round, len(rows), before, n, state)
		}
		if check := dump(t, db); !strings.Contains(check, "maillog_") {
			t.Error("no day")
		}
		finish(t, db)
		wantSound(t, db)
		if s, err := readSchema(sqlite(db).w.c, nil); err != nil || len(s.missing()) > 0 {
			t.Errorf("indexes are missing: %q, %v", s.missing(), err)
		}
		db.Close()
	}
}

func wantSound(t *testing.T, db *DB) {
	t.Helper()
	err := each(sqlite(db).w.c, "PRAGMA integrity_check", func(s *lite.Stmt) error {
		if s.Text(0) != "ok" {
			t.Error(s.Text(0))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// When the disk is full, nothing is half-written, and the next run completes.
func TestDiskFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "maillog.db")
	if dir := smallDisk(t); dir != "" {
		path = filepath.Join(dir, "maillog.db")
	}
	db := openAt(t, path, ReadWrite)
	if smallest := strings.HasPrefix(path, os.TempDir()); smallest {
		pages, err := sqlite(db).w.c.Int("PRAGMA page_count")
		if err != nil {
			t.Fatal(err)
		}
		if err := sqlite(db).w.c.Exec(fmt.Sprintf("PRAGMA max_page_count = %d", pages+200)); err != nil {
			t.Fatal(err)
		}
	}
	n := int64(0)
	var err error
	for ; n < 200*scale; n++ {
		if err = db.Commit(t.Context(), numbered(n)); err != nil {
			break
		}
	}
	wantStatus(t, err, sysexits.IO, path, "full", "nothing is half-written", "run the same command again")
	if got := find(t, db, &Query{}); int64(len(got)) != n*batchRows {
		t.Errorf("%d rows after %d batches", len(got), n)
	}
	err = db.Finish(t.Context())
	if err != nil {
		wantStatus(t, err, sysexits.IO, path, "full")
	}
	db.Close()
	// Room again: elsewhere, as the small disk cannot grow.
	room := filepath.Join(t.TempDir(), "maillog.db")
	for _, suffix := range []string{"", "-wal"} {
		if data, err := os.ReadFile(path + suffix); err == nil {
			if err := os.WriteFile(room+suffix, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	db = openAt(t, room, ReadWrite)
	for i := range n + 3 {
		commit(t, db, numbered(i))
	}
	finish(t, db)
	wantSound(t, db)
	if got := find(t, db, &Query{}); int64(len(got)) != (n+3)*batchRows {
		t.Errorf("%d rows", len(got))
	}
}

// smallDisk mounts a disk of 4 MB; "" where that is not permitted.
func smallDisk(t *testing.T) string {
	dir, err := os.MkdirTemp("/var/tmp", "rol-small-")
	if err != nil {
		return ""
	}
	t.Cleanup(func() { os.Remove(dir) })
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		return ""
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// A second writer is refused while there is a first, which goes on; after its
// end, in good order or not, the database is free.
func TestOneWriterAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "maillog.db")
	a := openAt(t, path, ReadWrite)
	for range 2 {
		_, err := Open(path, ReadWrite)
		wantStatus(t, err, sysexits.TryAgain, path, "another rol-logpipe is writing to it", "try again")
	}
	commit(t, a, numbered(0))
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := role(t, "write", path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !bufio.NewScanner(out).Scan() {
		t.Error("the other process does not write")
	}
	_, err = Open(path, ReadWrite)
	wantStatus(t, err, sysexits.TryAgain, path)
	ro := openAt(t, path, ReadOnly)
	if got := find(t, ro, &Query{}); len(got) == 0 {
		t.Error("a reader does not read beside a writer")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	openAt(t, path, ReadWrite).Close()
}

// A file that is moved away or removed while it is written, as by a rotation
// meant for logs, is noticed before anything is written to it that nobody
// would find. Load makes a new one.
func TestFileMoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "maillog.db")
	db := openAt(t, path, ReadWrite)
	commit(t, db, numbered(0))
	for n, away := range []func() error{
		func() error { return os.Rename(path, path+".1") },
		func() error { return os.Remove(path) },
		func() error { return errors.Join(os.Rename(path, path+".2"), os.WriteFile(path, nil, 0o600)) },
	} {
		if err := away(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			err := db.Commit(t.Context(), numbered(1))
			wantStatus(t, err, sysexits.TryAgain, path, "moved away or removed")
			if !errors.Is(err, ErrMoved) {
				t.Error(err)
			}
		}
		wantStatus(t, db.Finish(t.Context()), sysexits.TryAgain, path)
		pos, err := db.Load(t.Context(), func(_, _ []byte) error { return errors.New("open state") })
		if err != nil || len(pos) > 0 {
			t.Fatalf("a new file has positions %v, %v", pos, err)
		}
		for i := range int64(n + 1) {
			commit(t, db, numbered(i))
		}
		finish(t, db)
		if got := find(t, db, &Query{}); len(got) != (n+1)*batchRows {
			t.Errorf("%d rows, round %d", len(got), n)
		}
	}
	old := openAt(t, path+".1", ReadWrite)
	wantSound(t, old)
	if got := find(t, old, &Query{}); len(got) != batchRows {
		t.Errorf("%d rows in what was moved away", len(got))
	}
}

// Two programs that write, one of them without the lock: one waits for the
// other, and says so if that takes too long.
func TestTwoWriters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "maillog.db")
	a := openAt(t, path, ReadWrite)
	b := &DB{where: path, b: &sqliteDB{path: path, wait: busyWait, mode: ReadWrite}}
	var err error
	if sqlite(b).lock, err = os.Open(path); err != nil { // it does not lock it
		t.Fatal(err)
	}
	if err := sqlite(b).openWriter(); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := sqlite(a).w.c.Exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	sqlite(b).wait = 50 * time.Millisecond
	wantStatus(t, b.Commit(t.Context(), numbered(0)), sysexits.TryAgain, path, "another program", "try again")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	sqlite(b).wait = time.Minute
	if err := b.Commit(ctx, numbered(0)); err != context.DeadlineExceeded {
		t.Errorf("waiting does not end with the context: %v", err)
	}
	if got := find(t, b, &Query{}); len(got) != 0 {
		t.Errorf("reading waits for a writer: %d rows", len(got))
	}
	done := make(chan error)
	go func() { done <- b.Commit(t.Context(), numbered(0)) }()
	if err := sqlite(a).w.c.Exec("COMMIT"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	// Both make days and indexes that the other does not know of.
	for n := range int64(30) {
		commit(t, []*DB{a, b}[n%2], numbered(n*5))
		if n%4 == 3 {
			finish(t, []*DB{a, b}[n/4%2])
		}
	}
	if got := find(t, a, &Query{}); len(got) != 30*batchRows {
		t.Errorf("%d rows", len(got))
	}
	wantSound(t, a)
}

// A day dropped by another program, as a rotation does it, is gone, and is
// made again when rows of it come.
func TestDayDropped(t *testing.T) {
	db := openTemp(t)
	commit(t, db, numbered(0))
	finish(t, db)
	other, err := lite.Open(uri(db.Where(), ""), lite.Existing)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Exec("DROP TABLE " + dayTable(flat.Day(noon))); err != nil {
		t.Fatal(err)
	}
	if got := find(t, db, &Query{}); len(got) != 0 {
		t.Errorf("%d rows", len(got))
	}
	commit(t, db, numbered(0))
	if got := find(t, db, &Query{}); len(got) != batchRows {
		t.Errorf("%d rows", len(got))
	}
}
