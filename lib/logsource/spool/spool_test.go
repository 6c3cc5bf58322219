package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/logsource"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// said keeps what is logged.
type said struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

func (s *said) log() *slog.Logger { return slog.New(slog.NewTextHandler(s, nil)) }

func open(tb testing.TB, o Options) *Spool {
	tb.Helper()
	s, err := Open(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	return s
}

func shut(tb testing.TB, s *Spool) {
	tb.Helper()
	if err := s.Close(); err != nil {
		tb.Fatal(err)
	}
}

// text is the lines of chunk i of a source, of a length that varies with i.
func text(key string, i int) []byte {
	var b []byte
	for j := range i%7 + 1 {
		b = fmt.Appendf(b, "%s %d.%d %s\n", key, i, j, strings.Repeat("x", i*j%50))
	}
	return b
}

func chunk(key string, i int) *logsource.Chunk {
	return &logsource.Chunk{Key: key, State: fmt.Appendf(nil, "%d", i+1), Lines: text(key, i)}
}

func put(tb testing.TB, s *Spool, c *logsource.Chunk) {
	tb.Helper()
	if err := s.Put(context.Background(), c); err != nil {
		tb.Fatal(err)
	}
}

// fill puts chunks from to to of a source.
func fill(tb testing.TB, s *Spool, key string, from, to int) {
	tb.Helper()
	for i := from; i < to; i++ {
		put(tb, s, chunk(key, i))
	}
}

type got struct {
	key, lines string
	from, to   int64
}

// rest reads from an offset to the end.
func rest(tb testing.TB, s *Spool, from int64) (all []got) {
	tb.Helper()
	r, err := s.NewReader(from)
	if err != nil {
		tb.Fatal(err)
	}
	defer r.Close()
	for {
		b, err := r.TryNext()
		if err != nil {
			tb.Fatal(err)
		}
		if b == nil {
			return all
		}
		all = append(all, got{b.Key, string(b.Lines), b.From, b.To})
	}
}

// expect compares what is read with chunks from to to of a source.
func expect(tb testing.TB, all []got, key string, from, to int) {
	tb.Helper()
	i := from
	for _, g := range all {
		if g.key != key {
			continue
		}
		if g.lines != string(text(key, i)) {
			tb.Fatalf("%s: block %d is %.60q, want %.60q", key, i, g.lines, text(key, i))
		}
		i++
	}
	if i != to {
		tb.Fatalf("%s: blocks %d to %d, want %d", key, from, i, to)
	}
}

func small(dir string) Options { return Options{Dir: dir, MaxBytes: 1 << 20, SegmentBytes: 4 << 10} }

func TestPutAndRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	s := open(t, small(dir))
	fill(t, s, "a", 0, 100)
	fill(t, s, "b", 0, 100)
	fill(t, s, "a", 100, 150)
	check := func(s *Spool) {
		t.Helper()
		all := rest(t, s, 0)
		expect(t, all, "a", 0, 150)
		expect(t, all, "b", 0, 100)
		for i, g := range all {
			if i > 0 && g.from != all[i-1].to {
				t.Fatalf("block %d begins at %d, not %d", i, g.from, all[i-1].to)
			}
		}
		if last := all[len(all)-1].to; last != s.End() {
			t.Errorf("the last block ends at %d, the spool at %d", last, s.End())
		}
		if a, b := string(s.State("a")), string(s.State("b")); a != "150" || b != "100" || s.State("c") != nil {
			t.Errorf("states %q, %q", a, b)
		}
		expect(t, rest(t, s, all[20].to), "a", 21, 150)
	}
	check(s)
	if st := s.Stats(); st.Segments < 4 || st.Puts != 250 || st.Begin != 0 || st.SetAside != 0 {
		t.Errorf("%+v", st)
	}
	id := s.ID()
	shut(t, s)
	s = open(t, small(dir))
	if s.ID() != id || id == [16]byte{} {
		t.Errorf("id %x, then %x", id, s.ID())
	}
	check(s)
	if st := s.Stats(); st.Synced != st.End {
		t.Errorf("not synced: %+v", st)
	}
	info, err := os.Stat(filepath.Join(dir, segmentName(0)))
	if err != nil || info.Mode().Perm()&0o027 != 0 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestStateIsForgotten(t *testing.T) {
	dir := t.TempDir()
	s := open(t, small(dir))
	put(t, s, &logsource.Chunk{Key: "a", State: []byte("1")})
	put(t, s, &logsource.Chunk{Key: "b", State: []byte("2")})
	put(t, s, &logsource.Chunk{Key: "a", Lines: []byte("x\n")})
	for range 2 {
		if s.State("a") != nil || string(s.State("b")) != "2" || fmt.Sprint(s.Keys()) != "[b]" {
			t.Errorf("states %q, %q", s.State("a"), s.State("b"))
		}
		shut(t, s)
		s = open(t, small(dir))
	}
}

func TestOffsets(t *testing.T) {
	dir := t.TempDir()
	s := open(t, small(dir))
	fill(t, s, "a", 0, 300)
	end := s.End()
	s.Release(end)
	begin := s.Begin()
	if begin == 0 || s.Stats().Segments != 1 {
		t.Fatalf("begins at %d, %d segments", begin, s.Stats().Segments)
	}
	for range 2 {
		_, err := s.NewReader(begin - 1)
		var o *OffsetError
		if !errors.Is(err, ErrGone) || !errors.As(err, &o) || o.Begin != begin || sysexits.Status(err) != sysexits.Data {
			t.Errorf("before the beginning: %v", err)
		}
		_, err = s.NewReader(end + 1)
		if !errors.Is(err, ErrAhead) || !errors.As(err, &o) || o.End != end {
			t.Errorf("behind the end: %v", err)
		}
		if err := s.SyncTo(end + 1); !errors.Is(err, ErrAhead) {
			t.Errorf("sync behind the end: %v", err)
		}
		expect(t, rest(t, s, end), "a", 300, 300)
		shut(t, s)
		s = open(t, small(dir))
		if s.End() != end || s.Begin() != begin {
			t.Errorf("%d to %d, want %d to %d", s.Begin(), s.End(), begin, end)
		}
	}
}

func TestSkip(t *testing.T) {
	dir := t.TempDir()
	s := open(t, small(dir))
	if err := s.Skip(1000); err != nil || s.End() != 1000 {
		t.Fatalf("%v, %d", err, s.End())
	}
	fill(t, s, "a", 0, 10)
	end := s.End()
	if err := s.Skip(end - 1); err != nil || s.End() != end {
		t.Fatalf("%v, %d", err, s.End())
	}
	if err := s.Skip(end + 5000); err != nil {
		t.Fatal(err)
	}
	fill(t, s, "a", 10, 20)
	for range 2 {
		all := rest(t, s, 0)
		expect(t, all, "a", 0, 20)
		if all[0].from != 1000 || all[9].to != end || all[10].from != end+5000 {
			t.Errorf("%d, %d, %d", all[0].from, all[9].to, all[10].from)
		}
		expect(t, rest(t, s, end+3), "a", 10, 20)
		shut(t, s)
		s = open(t, small(dir))
	}
	s.Release(end) // a slow database that has all before the jump
	if s.Begin() != end+5000 {
		t.Fatalf("begins at %d", s.Begin())
	}
	expect(t, rest(t, s, end), "a", 10, 20)
	if _, err := s.NewReader(end - 1); !errors.Is(err, ErrGone) {
		t.Errorf("%v", err)
	}
}

func TestOneProcess(t *testing.T) {
	dir := t.TempDir()
	s := open(t, small(dir))
	o := small(dir)
	o.LockWait = 30 * time.Millisecond
	_, err := Open(o)
	if sysexits.Status(err) != sysexits.TryAgain || !strings.Contains(fmt.Sprint(err), fmt.Sprintf("process %d", os.Getpid())) {
		t.Fatalf("%v", err)
	}
	time.AfterFunc(30*time.Millisecond, func() { s.Close() })
	shut(t, open(t, small(dir)))
}

func TestLook(t *testing.T) {
	dir := t.TempDir()
	if _, err := Look(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no spool: %v", err)
	}
	s := open(t, small(dir))
	fill(t, s, "a", 0, 100)
	begin := s.Stats()
	s.Release(s.End() / 2)
	for _, used := range []bool{true, false} {
		got, err := Look(dir)
		want := Info{ID: s.ID(), Begin: s.Begin(), End: s.End(), Segments: s.Stats().Segments, Bytes: s.Stats().Bytes}
		if used {
			want.Process = os.Getpid()
		}
		if err != nil || got != want || got.Begin == begin.Begin {
			t.Errorf("%v, %+v, want %+v", err, got, want)
		}
		shut(t, s)
	}
}

func TestClosed(t *testing.T) {
	s := open(t, small(t.TempDir()))
	r, err := s.NewReader(0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	done := make(chan error, 1)
	go func() {
		_, err := r.Next(context.Background())
		done <- err
	}()
	shut(t, s)
	if err := <-done; err != ErrClosed {
		t.Errorf("Next: %v", err)
	}
	if err := s.Put(context.Background(), chunk("a", 0)); err != ErrClosed {
		t.Errorf("Put: %v", err)
	}
	if _, err := s.NewReader(0); err != ErrClosed {
		t.Errorf("NewReader: %v", err)
	}
	if _, err := r.Wait(context.Background(), time.Hour); err != ErrClosed {
		t.Errorf("Wait: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close again: %v", err)
	}
}

func TestReaderIsWoken(t *testing.T) {
	s := open(t, small(t.TempDir()))
	r, err := s.NewReader(0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx := context.Background()
	if ok, err := r.Wait(ctx, time.Millisecond); ok || err != nil {
		t.Fatalf("%v, %v", ok, err)
	}
	for i := range 50 {
		if b, err := r.TryNext(); b != nil || err != nil {
			t.Fatalf("%v, %v", b, err)
		}
		go func() { put(t, s, chunk("a", i)) }()
		switch i % 3 {
		case 0:
			if ok, err := r.Wait(ctx, time.Minute); !ok || err != nil {
				t.Fatalf("%v, %v", ok, err)
			}
		case 1:
			for r.Pos() == s.End() { // a token may be an old one
				<-r.Ready()
			}
		}
		b, err := r.Next(ctx)
		if err != nil || string(b.Lines) != string(text("a", i)) {
			t.Fatalf("%v, %v", b, err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	time.AfterFunc(time.Millisecond, cancel)
	if _, err := r.Next(ctx); err != context.Canceled {
		t.Errorf("%v", err)
	}
}

func TestImproperChunks(t *testing.T) {
	s := open(t, small(t.TempDir()))
	for _, c := range []*logsource.Chunk{
		{},
		{Key: strings.Repeat("k", logsource.MaxKey+1)},
		{Key: "a", State: make([]byte, logsource.MaxState+1)},
		{Key: "a", Lines: []byte("no newline")},
		{Key: "a", Lines: append(make([]byte, logsource.MaxChunk), '\n')},
	} {
		if err := s.Put(context.Background(), c); sysexits.Status(err) != sysexits.Bug {
			t.Errorf("%.10q: %v", c.Key, err)
		}
	}
	big := &logsource.Chunk{Key: strings.Repeat("k", logsource.MaxKey), State: make([]byte, logsource.MaxState), Lines: make([]byte, logsource.MaxChunk)}
	big.Lines[logsource.MaxChunk-1] = '\n'
	put(t, s, big)
	if all := rest(t, s, 0); len(all) != 1 || all[0].key != big.Key || all[0].lines != string(big.Lines) {
		t.Error("the biggest chunk does not come back")
	}
}

func TestTooManySources(t *testing.T) {
	s := open(t, small(t.TempDir()))
	c := &logsource.Chunk{State: make([]byte, logsource.MaxState)}
	var err error
	n := 0
	for ; n < 100 && err == nil; n++ {
		c.Key = fmt.Sprint(n)
		err = s.Put(context.Background(), c)
		s.Release(s.End())
	}
	if sysexits.Status(err) != sysexits.Unavailable || n < 30 {
		t.Fatalf("source %d: %v", n, err)
	}
	c.Key = "1"
	put(t, s, c)
}

// What is full waits for Release, and then goes on, in order.
func TestBackPressure(t *testing.T) {
	var logged said
	o := small(t.TempDir())
	o.Log = logged.log()
	s := open(t, o)
	n := 0
	for ; ; n++ {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		err := s.Put(ctx, chunk("a", n))
		cancel()
		if err == context.DeadlineExceeded {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	st := s.Stats()
	if st.Bytes > o.MaxBytes || st.Bytes < o.MaxBytes-o.SegmentBytes || st.Waiting != 0 || st.Waits != 1 {
		t.Errorf("%+v", st)
	}
	done := make(chan error, 2)
	for _, key := range []string{"a", "b"} {
		go func() {
			for i := range 200 {
				if key == "a" {
					i += n
				}
				if err := s.Put(context.Background(), chunk(key, i)); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for s.Stats().Waiting == 0 {
		time.Sleep(time.Millisecond)
	}
	r, err := s.NewReader(0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	next := map[string]int{}
	for next["a"] < n+200 || next["b"] < 200 {
		b, err := r.Next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if want := text(b.Key, next[b.Key]); string(b.Lines) != string(want) {
			t.Fatalf("%s: %.50q, want %.50q", b.Key, b.Lines, want)
		}
		next[b.Key]++
		s.Release(b.To)
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(logged.String(), "full size") || strings.Count(logged.String(), "no longer wait") < 2 {
		t.Errorf("%s", logged.String())
	}
}

func TestSyncEach(t *testing.T) {
	o := small(t.TempDir())
	o.SyncEach, o.SyncEvery = true, time.Hour
	s := open(t, o)
	var wg sync.WaitGroup
	for k := range 4 {
		wg.Go(func() {
			for i := range 50 {
				if err := s.Put(context.Background(), chunk(fmt.Sprint(k), i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if st := s.Stats(); st.Synced != st.End || st.Syncs == 0 || st.Syncs > 200 || st.SyncMax > st.SyncTime {
		t.Errorf("%+v", st)
	}
}

func TestSyncedByTime(t *testing.T) {
	o := small(t.TempDir())
	o.SyncEvery = time.Millisecond
	s := open(t, o)
	put(t, s, chunk("a", 0))
	for end := time.Now().Add(10 * time.Second); s.Stats().Synced != s.End(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not synced")
		}
	}
	put(t, s, chunk("a", 1))
	if err := s.SyncTo(s.End()); err != nil || s.Stats().Synced != s.End() {
		t.Error(err)
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{MaxBytes: 1000}, {MaxBytes: 1 << 20, SegmentBytes: 1 << 20}, {SegmentBytes: 10}} {
		o.Dir = t.TempDir()
		if _, err := Open(o); sysexits.Status(err) != sysexits.Config {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// follows checks that a block is the next of its source.
func follows(next map[string]int, b *Block) error {
	if len(b.Lines) == 0 {
		return nil
	}
	var i int
	if _, err := fmt.Sscanf(string(b.Lines), b.Key+" %d.", &i); err != nil {
		return err
	}
	if want, known := next[b.Key]; known && i != want {
		return fmt.Errorf("chunk %d of %s comes instead of %d", i, b.Key, want)
	}
	if string(b.Lines) != string(text(b.Key, i)) {
		return fmt.Errorf("chunk %d of %s is %.60q", i, b.Key, b.Lines)
	}
	next[b.Key] = i + 1
	return nil
}
