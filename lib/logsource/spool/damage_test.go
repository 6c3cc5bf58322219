package spool

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/lib/logsource"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// segmentFiles are the segments of a directory, in order.
func segmentFiles(tb testing.TB, dir string) []string {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix))
	if err != nil || len(files) == 0 {
		tb.Fatalf("no segments: %v", err)
	}
	return files
}

func damagedFiles(tb testing.TB, dir string) []string {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"+damagedSuffix))
	if err != nil {
		tb.Fatal(err)
	}
	return files
}

// change changes a file's content.
func change(tb testing.TB, path string, how func(b []byte) []byte) {
	tb.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, how(b), 0o640)
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// closed is the directory of a spool with chunks 0 to n of source a, one of b
// in the first segment, and its blocks.
func closed(tb testing.TB, n int) (dir string, all []got) {
	tb.Helper()
	dir = filepath.Join(tb.TempDir(), "spool")
	s := open(tb, small(dir))
	put(tb, s, chunk("b", 0))
	fill(tb, s, "a", 0, n)
	all = rest(tb, s, 0)
	shut(tb, s)
	return dir, all
}

// headLength is the length of the header of a segment.
func headLength(tb testing.TB, path string) int {
	tb.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	n, err := headerLength(b)
	if err != nil {
		tb.Fatal(err)
	}
	return int(n)
}

// What a crash, or a bad disk, does to a spool of several segments, and what
// is left of chunks 0 to 100.
func TestDamage(t *testing.T) {
	const n = 100
	last := func(files []string) string { return files[len(files)-1] }
	for _, c := range []struct {
		name   string
		change func(t *testing.T, files []string)
		lost   []int // which of the chunks, -1: that of b; nil: none
		tail   int   // so many of the last
		aside  int   // files set aside
		says   string
	}{
		{"nothing", func(*testing.T, []string) {}, nil, 0, 0, ""},
		{"a torn last block", func(t *testing.T, files []string) {
			change(t, last(files), func(b []byte) []byte { return b[:len(b)-7] })
		}, nil, 1, 1, "the end of the spool is torn"},
		{"a piece of the next block", func(t *testing.T, files []string) {
			change(t, last(files), func(b []byte) []byte { return append(b, marker[:]...) })
		}, nil, 0, 1, "the end of the spool is torn"},
		{"zeros at the end", func(t *testing.T, files []string) {
			change(t, last(files), func(b []byte) []byte { return append(b, make([]byte, 100000)...) })
		}, nil, 0, 0, "never written"},
		{"a flipped bit in the first segment", func(t *testing.T, files []string) {
			change(t, files[0], func(b []byte) []byte { b[headLength(t, files[0])+26] ^= 1; return b })
		}, []int{-1}, 0, 1, "a part of the spool is damaged"},
		{"a flipped bit in a length", func(t *testing.T, files []string) {
			change(t, files[0], func(b []byte) []byte { b[headLength(t, files[0])+9] ^= 1; return b })
		}, []int{-1}, 0, 1, "a part of the spool is damaged"},
		{"a flipped bit in a block of the last segment", func(t *testing.T, files []string) {
			change(t, last(files), func(b []byte) []byte {
				b[bytes.Index(b, []byte("a 95.0"))] ^= 1
				return b
			})
		}, []int{95}, 0, 1, "a part of the spool is damaged"},
		{"an older segment that ends early", func(t *testing.T, files []string) {
			change(t, files[0], func(b []byte) []byte { return b[:bytes.Index(b, []byte("a 5.4"))] })
		}, nil, -5, 1, "a part of the spool is damaged"},
		{"an older segment without a header", func(t *testing.T, files []string) {
			change(t, files[0], func(b []byte) []byte { clear(b[:headLength(t, files[0])]); return b })
		}, nil, 0, 1, "the header of a segment is damaged"},
		{"a last segment with a bad table", func(t *testing.T, files []string) {
			change(t, last(files), func(b []byte) []byte { b[headFixed+2] ^= 1; return b })
		}, nil, 0, 1, "the header of a segment is damaged"},
		{"all headers gone", func(t *testing.T, files []string) {
			for _, f := range files {
				change(t, f, func(b []byte) []byte { b[headFixed] ^= 1; return b })
			}
		}, nil, 0, -1, "no segment of the spool has a whole header"},
		{"an empty last segment", func(t *testing.T, files []string) {
			change(t, filepath.Join(filepath.Dir(files[0]), lastName(t, files)), func([]byte) []byte { return nil })
		}, nil, 0, 0, "an empty segment"},
		{"a last segment of zeros", func(t *testing.T, files []string) {
			change(t, filepath.Join(filepath.Dir(files[0]), lastName(t, files)), func([]byte) []byte { return make([]byte, 5000) })
		}, nil, 0, 0, "an empty segment"},
		{"a last segment with half a header", func(t *testing.T, files []string) {
			change(t, filepath.Join(filepath.Dir(files[0]), lastName(t, files)), func([]byte) []byte { return []byte("rolspool\x01\x00\x00\x00\x50") })
		}, nil, 0, 1, "no whole header and no blocks"},
		{"no spare", func(t *testing.T, files []string) {
			if err := os.Remove(filepath.Join(filepath.Dir(files[0]), spareName)); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}, nil, 0, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, before := closed(t, n)
			c.change(t, segmentFiles(t, dir))
			want := slices.Clone(before)
			switch {
			case c.tail > 0:
				want = want[:len(want)-c.tail]
			case c.tail < 0: // the first segment loses what is behind this chunk
				i := 1 - c.tail
				second := segmentBase(t, segmentFiles(t, dir)[1])
				for i < len(want) && want[i].from < second {
					want = slices.Delete(want, i, i+1)
				}
			}
			for _, i := range c.lost {
				want = slices.DeleteFunc(want, func(g got) bool {
					return i < 0 && g.key == "b" || i >= 0 && g.key == "a" && g.lines == string(text("a", i))
				})
			}
			var logged said
			o := small(dir)
			o.Log = logged.log()
			s := open(t, o)
			if all := rest(t, s, 0); !slices.Equal(all, want) {
				t.Fatalf("%d blocks, want %d\n%s", len(all), len(want), logged.String())
			}
			rest(t, s, 0) // a second reader says nothing new
			if c.aside >= 0 && (s.Stats().SetAside != c.aside || s.Stats().Damages != c.aside || len(damagedFiles(t, dir)) != c.aside) {
				t.Errorf("%+v, files %q, want %d", s.Stats(), damagedFiles(t, dir), c.aside)
			}
			if !strings.Contains(logged.String(), c.says) || c.says == "" && strings.Contains(logged.String(), "WARN") || strings.Count(logged.String(), "a part of") > 1 {
				t.Errorf("want %q once:\n%s", c.says, logged.String())
			}
			on := n - max(c.tail, 0)
			if state := string(s.State("a")); state != string(chunk("a", on-1).State) {
				t.Errorf("state %q", state)
			}
			fill(t, s, "a", on, on+50) // it goes on
			for i := on; i < on+50; i++ {
				want = append(want, got{key: "a", lines: string(text("a", i))})
			}
			shut(t, s)
			s = open(t, small(dir))
			all := rest(t, s, 0)
			if !slices.EqualFunc(all, want, func(a, b got) bool { return a.key == b.key && a.lines == b.lines }) {
				t.Errorf("afterwards %d blocks, want %d", len(all), len(want))
			}
			if s.Stats().Segments > 1 && string(s.State("b")) != "1" && c.name != "all headers gone" {
				t.Errorf("state of b %q", s.State("b"))
			}
		})
	}
}

func segmentBase(tb testing.TB, path string) int64 {
	tb.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return int64(le.Uint64(b[32:]))
}

// lastName makes the file that a new last segment would be, and names it.
func lastName(tb testing.TB, files []string) string {
	tb.Helper()
	path := files[len(files)-1]
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	h, err := parseHeader(b)
	if err != nil {
		tb.Fatal(err)
	}
	name := segmentName(h.base + int64(len(b)) - h.length)
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), name), nil, 0o640); err != nil {
		tb.Fatal(err)
	}
	return name
}

// What is no spool of this version is left as it is.
func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(t *testing.T, dir string, files []string)
		says   string
	}{
		{"a newer version", func(t *testing.T, _ string, files []string) {
			change(t, files[len(files)-1], func(b []byte) []byte { b[8]++; return b })
		}, "another version"},
		{"another file named as a segment", func(t *testing.T, dir string, _ []string) {
			if err := os.WriteFile(filepath.Join(dir, segmentName(1<<40)), []byte(strings.Repeat("Nov 25 mx1 ", 1000)), 0o640); err != nil {
				t.Fatal(err)
			}
		}, "no segment of a spool"},
		{"renamed", func(t *testing.T, dir string, files []string) {
			if err := os.Rename(files[1], filepath.Join(dir, segmentName(77))); err != nil {
				t.Fatal(err)
			}
		}, "has been renamed"},
		{"two spools", func(t *testing.T, _ string, files []string) {
			change(t, files[1], func(b []byte) []byte {
				h, err := parseHeader(b)
				if err != nil {
					t.Fatal(err)
				}
				h.id[0]++
				return appendHeader(nil, h)
			})
		}, "another spool"},
		{"a directory of something else", func(t *testing.T, dir string, files []string) {
			for _, f := range files {
				os.Remove(f)
			}
			if err := os.WriteFile(filepath.Join(dir, "mail.log"), nil, 0o640); err != nil {
				t.Fatal(err)
			}
		}, `"mail.log"`},
		{"a directory as a segment", func(t *testing.T, dir string, _ []string) {
			if err := os.Mkdir(filepath.Join(dir, segmentName(1<<40)), 0o750); err != nil {
				t.Fatal(err)
			}
		}, "is no file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, _ := closed(t, 100)
			c.change(t, dir, segmentFiles(t, dir))
			before := listing(t, dir)
			_, err := Open(small(dir))
			if sysexits.Status(err) != sysexits.Config || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v", err)
			}
			if after := listing(t, dir); after != before {
				t.Errorf("changed from\n%sto\n%s", before, after)
			}
		})
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(small(file)); err == nil {
		t.Error("a file is taken for a directory")
	}
}

// listing is the names and sizes in a directory, but for the lock.
func listing(tb testing.TB, dir string) string {
	tb.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		tb.Fatal(err)
	}
	var b strings.Builder
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			tb.Fatal(err)
		}
		if e.Name() != lockName {
			b.WriteString(e.Name() + " " + info.ModTime().String() + "\n")
		}
	}
	return b.String()
}

// A disk that is full is no reason not to start with what is there.
func TestOpenOnAFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	dir := tmpfs(t, "256k")
	var logged said
	o := Options{Dir: filepath.Join(dir, "spool"), Log: logged.log()}
	s := open(t, o)
	fill(t, s, "a", 0, 200)
	shut(t, s)
	files := segmentFiles(t, o.Dir)
	change(t, files[len(files)-1], func(b []byte) []byte { return b[:len(b)-7] })
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	_, err := Open(Options{Dir: filepath.Join(dir, "new")})
	if sysexits.Status(err) != sysexits.IO || !strings.Contains(err.Error(), "no space") {
		t.Errorf("a new spool: %v", err)
	}
	s = open(t, o)
	if !strings.Contains(logged.String(), "could not be set aside") || s.Stats().Damages != 1 || s.Stats().SetAside != 0 {
		t.Errorf("%+v\n%s", s.Stats(), logged.String())
	}
	expect(t, rest(t, s, 0), "a", 0, 199)
	done := make(chan error, 1)
	go func() { // until it needs room
		for i := 199; i < 400; i++ {
			if err := s.Put(context.Background(), chunk("a", i)); err != nil {
				done <- err
			}
		}
		close(done)
	}()
	poll(t, "a full disk", func() bool { return s.Stats().DiskFull })
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	expect(t, rest(t, s, 0), "a", 0, 400)
	open(t, Options{Dir: filepath.Join(dir, "new")})
}

// Nothing that a log line says can be taken for a block, not even a copy of
// the spool.
func TestForgedBlocks(t *testing.T) {
	other := open(t, small(t.TempDir()))
	fill(t, other, "forged", 0, 10)
	forged, err := os.ReadFile(segmentFiles(t, other.opt.Dir)[0])
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := open(t, small(dir))
	b := forged[headMin:]
	c := &logsource.Chunk{Key: "a", Lines: append(bytes.Clone(b), '\n')}
	at := s.Stats().Bytes
	// A copy of what is in the spool itself, at the right place but for the
	// block around it.
	put(t, s, c)
	own, err := os.ReadFile(segmentFiles(t, dir)[0])
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, &logsource.Chunk{Key: "a", Lines: append(own, '\n')})
	fill(t, s, "a", 0, 3)
	shut(t, s)
	change(t, segmentFiles(t, dir)[0], func(b []byte) []byte { b[at] ^= 1; return b })
	s = open(t, small(dir))
	for i, g := range rest(t, s, 0) {
		if i > 0 && g.key != "a" || i > 0 && g.lines != string(text("a", i-1)) {
			t.Errorf("block %d is %s %.40q", i, g.key, g.lines)
		}
	}
}

// The readers go on while the disk is full, and nothing is lost.
func TestSmallFileSystem(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	for _, size := range []string{"64k", "256k", "1m"} {
		for _, how := range []string{"grown", "released"} {
			t.Run(size+" "+how, func(t *testing.T) { smallFileSystem(t, size, how == "grown") })
		}
	}
}

func smallFileSystem(t *testing.T, size string, grow bool) {
	dir := tmpfs(t, size)
	var logged said
	o := Options{Dir: dir, Log: logged.log()}
	s := open(t, o)
	ctx := context.Background()
	done := make(chan error, 1)
	const n = 8000 // about 2 MB
	go func() {
		for i := range n {
			if err := s.Put(ctx, chunk("a", i)); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	poll(t, "a full disk", func() bool { return s.Stats().DiskFull })
	r, err := s.NewReader(0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := s.SyncTo(s.End()); err != nil {
		t.Errorf("sync on a full disk: %v", err)
	}
	if grow {
		remount(t, dir, "16m")
	}
	next := map[string]int{"a": 0}
	for next["a"] < n {
		b, err := r.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := follows(next, b); err != nil {
			t.Fatal(err)
		}
		if !grow {
			s.Release(b.To)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(logged.String(), "disk of the spool is full") || !strings.Contains(logged.String(), "no longer wait") {
		t.Errorf("%s", logged.String())
	}
	shut(t, s)
	s = open(t, o)
	if string(s.State("a")) != string(chunk("a", n-1).State) || s.Stats().Damages != 0 {
		t.Errorf("state %q, %+v", s.State("a"), s.Stats())
	}
}
