package trace

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// The table and the heap against a map and a sorted slice.
func TestShelvedFindsAndOrders(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	s := &shelved{}
	type ent struct {
		keys []uint32
		at   int64
	}
	open := map[uint32]ent{}
	byKey := map[uint32][]uint32{}
	for step := range 60_000 {
		if rnd.IntN(5) < 3 && step < 45_000 {
			e := ent{at: rnd.Int64N(1e6)}
			id := s.add(entry{at: e.at, legs: 2, serial: uint64(step)})
			for range rnd.IntN(6) {
				fp := rnd.Uint32N(1<<20) << 12
				if s.index.add(fp, id) {
					e.keys = append(e.keys, fp)
					byKey[fp] = append(byKey[fp], id)
				}
			}
			if rnd.IntN(2) == 0 {
				s.unsave(id)
			}
			open[id] = e
		} else if len(open) > 0 {
			id := s.heap[0]
			if rnd.IntN(3) > 0 {
				id = s.heap[rnd.IntN(len(s.heap))]
			}
			for _, fp := range open[id].keys {
				s.index.remove(fp, id)
				k := byKey[fp]
				byKey[fp] = slices.Delete(k, slices.Index(k, id), slices.Index(k, id)+1)
			}
			delete(open, id)
			s.remove(id)
		}
		if step%2000 != 0 {
			continue
		}
		least := int64(1 << 60)
		for _, e := range open {
			least = min(least, e.at)
		}
		if len(open) > 0 && s.entry(s.heap[0]).at != least {
			t.Fatalf("step %d: the oldest is %d, want %d", step, s.entry(s.heap[0]).at, least)
		}
		if s.n != len(open) || s.legs != 2*len(open) {
			t.Fatalf("step %d: %d entries, want %d", step, s.n, len(open))
		}
		for i, id := range s.unsaved {
			if int(s.entry(id).unsavedAt) != i+1 {
				t.Fatalf("step %d: unsaved %d", step, i)
			}
		}
		n := 0
		for fp, want := range byKey {
			got := s.index.find(fp, nil)
			slices.Sort(got)
			w := slices.Clone(want)
			slices.Sort(w)
			if !slices.Equal(got, w) {
				t.Fatalf("step %d: %v under %x, want %v", step, got, fp, w)
			}
			n += len(got)
		}
		if n != s.index.n {
			t.Fatalf("step %d: %d in the table, want %d", step, s.index.n, n)
		}
	}
}

func TestTableRefusesTooManyTheSame(t *testing.T) {
	f := &fpTable{}
	for i := range uint32(maxSame) {
		if !f.add(7, i) {
			t.Fatalf("entry %d refused", i)
		}
	}
	if f.add(7, 9999) {
		t.Error("more than maxSame taken")
	}
	f.remove(7, 3)
	if !f.add(7, 9999) || len(f.find(7, nil)) != maxSame {
		t.Error("no room after a removal")
	}
}
