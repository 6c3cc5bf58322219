package logpipe

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rolmail/rolmail/lib/maillog/trace"
	"github.com/rolmail/rolmail/lib/sysexits"
)

var _ trace.Shelf = (*Shelf)(nil)

func newShelf(tb testing.TB) *Shelf {
	tb.Helper()
	s, err := NewShelf(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	return s
}

func TestShelfSizes(t *testing.T) {
	last := int64(0)
	for class := range shelfClasses {
		size := slotSize(class)
		if size <= last || last > 0 && size > last+last/4 {
			t.Errorf("class %d has %d bytes after %d", class, size, last)
		}
		last = size
		if got := classOf(int(size)); got != class {
			t.Errorf("%d bytes are class %d, want %d", size, got, class)
		}
		if got := classOf(int(size) + 1); got != class+1 {
			t.Errorf("%d bytes are class %d, want %d", size+1, got, class+1)
		}
	}
	if n := classOf(MaxShelved + shelfHead); slotSize(n)*2 != shelfExtent || n >= shelfClasses {
		t.Errorf("the largest class is %d, %d bytes", n, slotSize(n))
	}
}

// Against a map, with sizes that change over time as mails do.
func TestShelfKeepsWhatIsPut(t *testing.T) {
	s := newShelf(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	kept := map[int64][]byte{}
	var places []int64
	var buf []byte
	most, bytesKept := int64(0), int64(0)
	for step := range 60_000 {
		grow := step%20_000 < 9000
		if len(places) == 0 || rnd.IntN(10) < 3 || grow && rnd.IntN(10) < 6 {
			n := 100 + rnd.IntN(3000)
			if rnd.IntN(500) == 0 {
				n = rnd.IntN(MaxShelved + 1)
			}
			if step/20_000 == 1 {
				n = n/8 + 1
			}
			data := bytes.Repeat([]byte{byte(step), byte(step >> 8)}, n/2+1)[:n]
			at, err := s.Put(data)
			if err != nil {
				t.Fatal(err)
			}
			if kept[at] != nil {
				t.Fatalf("step %d: %d is taken", step, at)
			}
			kept[at] = data
			places = append(places, at)
			bytesKept += int64(n)
			most = max(most, bytesKept)
			continue
		}
		i := rnd.IntN(len(places))
		at := places[i]
		var err error
		if buf, err = s.Get(at, buf); err != nil || !bytes.Equal(buf, kept[at]) {
			t.Fatalf("step %d: %d bytes at %d, want %d; %v", step, len(buf), at, len(kept[at]), err)
		}
		if rnd.IntN(3) > 0 {
			bytesKept -= int64(len(kept[at]))
			s.Drop(at)
			delete(kept, at)
			places[i] = places[len(places)-1]
			places = places[:len(places)-1]
		}
	}
	file, used := s.Size()
	if file > 2*most+20*shelfExtent {
		t.Errorf("the file has %d bytes for at most %d", file, most)
	}
	if fi, err := s.f.Stat(); err != nil || fi.Size() > file {
		t.Errorf("the file has %d bytes, says it has %d; %v", fi.Size(), file, err)
	}
	for at, data := range kept {
		if got, err := s.Get(at, nil); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("in the end, at %d: %v", at, err)
		}
		s.Drop(at)
	}
	if file, left := s.Size(); left != 0 || used == 0 || file > 16*shelfExtent {
		t.Errorf("with nothing kept: %d bytes, %d in use", file, left)
	}
}

func TestShelfSaysWhatIsWrong(t *testing.T) {
	s := newShelf(t)
	at, err := s.Put([]byte("some mail or other"))
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []int64{-1, 1, at + 8, at + 256, 1 << 40} {
		if _, err := s.Get(wrong, nil); err == nil {
			t.Errorf("something at %d", wrong)
		}
		s.Drop(wrong)
	}
	if err := s.flush(&s.tails[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := s.f.WriteAt([]byte{'X'}, at+shelfHead+3); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(at, nil); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a changed byte: %v", err)
	}
	if _, err := s.Put(make([]byte, MaxShelved+1)); err == nil {
		t.Error("took more than MaxShelved")
	}
	s.Drop(at)
	if _, err := s.Get(at, nil); err == nil {
		t.Error("gives what was dropped")
	}
	if _, err := NewShelf(filepath.Join(t.TempDir(), "missing")); sysexits.Status(err) != sysexits.CannotMake {
		t.Errorf("no directory: %v", err)
	}
}

// A full disk is an error, and what was there before is still there.
func TestShelfOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skip("cannot mount a filesystem:", err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	s, err := NewShelf(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("the file has a name: %v", left)
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	var places []int64
	for {
		at, err := s.Put(fmt.Appendf(nil, "%01500d", len(places)))
		if err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			break
		}
		places = append(places, at)
	}
	if len(places) < 1000 {
		t.Errorf("%d of 1.5 kB in 3 MB", len(places))
	}
	for i, at := range places {
		if got, err := s.Get(at, nil); err != nil || string(got) != fmt.Sprintf("%01500d", i) {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	for i := range 400 {
		at, err := s.Put(fmt.Appendf(nil, "%01500d", i))
		if err != nil {
			t.Fatal("with room again:", err)
		}
		if got, err := s.Get(at, nil); err != nil || string(got) != fmt.Sprintf("%01500d", i) {
			t.Fatalf("%d: %v", i, err)
		}
	}
}

func BenchmarkShelf(b *testing.B) {
	s := newShelf(b)
	data := make([]byte, 1500)
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		at, err := s.Put(data)
		if err == nil {
			buf, err = s.Get(at, buf)
		}
		if err != nil {
			b.Fatal(err)
		}
		s.Drop(at)
	}
}
