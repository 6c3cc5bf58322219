package logpipe

import (
	"slices"
	"testing"

	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// Of what the tracer says of a row within a batch, the last counts.
func TestCollector(t *testing.T) {
	ids := make([]flat.ID, 6)
	for i := range ids {
		ids[i] = flat.MakeID(int64(i+1), 1, 1)
	}
	row := func(i int, reason string) *flat.Row {
		var r flat.Row
		r.Clear()
		r.ID, r.Reason = ids[i], reason
		return &r
	}
	c := newCollector(true)
	for range 2 { // a batch leaves nothing to the next
		c.Put(row(0, "stays"))
		c.Put(row(1, "first"))
		c.Put(row(2, "goes"))
		c.Delete(ids[2])
		c.Delete(ids[3])
		c.Delete(ids[4])
		c.Put(row(4, "comes back"))
		c.Put(row(5, "goes"))
		c.Delete(ids[5])
		c.Put(row(5, "and comes back"))
		c.Put(row(1, "second"))
		b := c.batch()
		var got []string
		for _, r := range b.Rows {
			got = append(got, r.Reason)
		}
		slices.Sort(got)
		if want := []string{"and comes back", "comes back", "second", "stays"}; !slices.Equal(got, want) {
			t.Errorf("rows %q, want %q", got, want)
		}
		slices.SortFunc(b.Delete, func(a, b flat.ID) int { return int(a.UnixMilli() - b.UnixMilli()) })
		if want := []flat.ID{ids[2], ids[3]}; !slices.Equal(b.Delete, want) {
			t.Errorf("deleted %v, want %v", b.Delete, want)
		}
	}
	if b := c.batch(); len(b.Rows)+len(b.Delete) != 0 {
		t.Errorf("an empty batch has %d rows", len(b.Rows))
	}
}

// What Put keeps does not change with the tracer's buffers.
func TestCollectorCopies(t *testing.T) {
	c := newCollector(true)
	var r flat.Row
	r.Clear()
	r.ID, r.Reason = flat.MakeID(1, 1, 1), "one"
	c.Put(&r)
	r.Reason = "two"
	if b := c.batch(); b.Rows[0].Reason != "one" {
		t.Errorf("reason %q", b.Rows[0].Reason)
	}
	key, data := []byte("key"), []byte("data")
	state := c.state(func(f func(key, data []byte)) {
		f(key, data)
		copy(key, "xxx")
		copy(data, "yyyy")
		f(key, nil)
	})
	if string(state[0].Key) != "key" || string(state[0].Data) != "data" || state[1].Data != nil {
		t.Errorf("state %q", state)
	}
}
