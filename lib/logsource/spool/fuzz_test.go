package spool

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// Whatever happens to the bytes of a segment, the spool opens or says why not;
// what it gives out was put, in order; what was not touched is there; and it
// goes on.
func FuzzDamagedSegment(f *testing.F) {
	dir := f.TempDir()
	o := Options{Dir: dir, MaxBytes: 1 << 20, SegmentBytes: 64 << 10}
	s := open(f, o)
	fill(f, s, "a", 0, 20)
	fill(f, s, "b", 0, 5)
	fill(f, s, "a", 20, 40)
	before := rest(f, s, 0)
	shut(f, s)
	file := segmentFiles(f, dir)[0]
	whole, err := os.ReadFile(file)
	if err != nil {
		f.Fatal(err)
	}
	head := int64(headLength(f, file))
	f.Add(uint(0), []byte{}, uint(0), false)
	f.Add(uint(8), []byte{9}, uint(0), false)
	f.Add(uint(16), []byte{9}, uint(0), false)
	f.Add(uint(70), []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, uint(0), false)
	f.Add(uint(100), marker[:], uint(1000), true)
	f.Add(uint(500), whole[head:head+300], uint(500), true)
	f.Fuzz(func(t *testing.T, at uint, piece []byte, cut uint, insert bool) {
		b := bytes.Clone(whole)
		from := int(at % uint(len(b)))
		to := len(b) // of what is not touched before, or whole behind
		if insert {
			b = slices.Insert(b, from, piece...)
		} else {
			to = from + copy(b[from:], piece)
		}
		end := len(b) - int(cut%uint(len(b)))
		b = b[:end]
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, segmentName(0)), b, 0o640); err != nil {
			t.Fatal(err)
		}
		o := o
		o.Dir = dir
		s, err := Open(o)
		if err != nil {
			if from >= int(head) && end >= int(head) {
				t.Fatalf("the header is as it was: %v", err)
			}
			return
		}
		defer s.Close()
		all := rest(t, s, s.Begin())
		i := 0
		for _, g := range append(all, got{}) {
			for ; i < len(before) && before[i] != g; i++ {
				touched := before[i].to > int64(from)-head && before[i].from < int64(to)-head || before[i].to > int64(end)-head
				if !touched && from >= int(head) {
					t.Fatalf("block %d, %+v, is gone", i, before[i])
				}
			}
			if i == len(before) && g != (got{}) {
				t.Fatalf("%+v was never put", g)
			}
			i++
		}
		put(t, s, chunk("c", 0))
		if again := rest(t, s, s.Begin()); len(again) != len(all)+1 || again[len(all)].lines != string(text("c", 0)) {
			t.Fatalf("%d blocks, then %d", len(all), len(again))
		}
	})
}

// Bytes that are no header are no header, and what is one comes back.
func FuzzHeader(f *testing.F) {
	h := &header{id: [16]byte{1}, base: 100, prev: 50, states: map[string][]byte{"a": []byte("1"), "b": []byte("22")}}
	f.Add(appendHeader(nil, h))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHeader(b)
		if err != nil {
			return
		}
		if again := appendHeader(nil, h); int64(len(again)) != h.length {
			t.Errorf("%d bytes become %d", h.length, len(again))
		}
	})
}
