package trace

// RestNow puts aside what it can without waiting for it to be quiet. What a
// leg is put aside from is not for rows to show.
func (t *Tracer) RestNow() {
	if t.err != nil || t.restoring {
		return
	}
	var all []retry
	for _, q := range [...]int{qActive, qWaiting} {
		for it := t.byQueue[q].head; it != nil; it = it.next {
			if l := it.thing.(*leg); !l.allFinal() || q == qWaiting {
				all = append(all, retry{l, l.serial})
			}
		}
	}
	t.again = nil
	for _, r := range all {
		if r.l.serial != r.serial || r.l.q == nil {
			continue // it went with another
		}
		if r.l.q == &t.byQueue[qActive] {
			t.insert(&r.l.item, qWaiting, r.l.at)
		}
		t.putAside(r.l)
	}
}

// Check says what is wrong with the tracer's tables; "" when nothing is.
func (t *Tracer) Check() string {
	n, legs := 0, 0
	for _, id := range t.shelf.heap {
		if _, ok := t.fromShelf(id); !ok {
			return "something on the shelf cannot be read"
		}
		e := *t.shelf.entry(id)
		n++
		legs += int(e.legs)
		for _, k := range t.keys {
			found := false
			for _, x := range t.shelf.index.find(fingerprint(k), nil) {
				found = found || x == id
			}
			if !found {
				return "a key of something on the shelf is not in the table"
			}
		}
		if !t.members(func(saved) {}) {
			return "members of something on the shelf cannot be read"
		}
	}
	if n != t.shelf.n || legs != t.shelf.legs {
		return "counts of the shelf are wrong"
	}
	inQueues := 0
	for _, q := range [...]int{qActive, qDone, qExpect, qMaybe, qParked, qOpen, qWaiting} {
		last := int64(-1 << 62)
		for it := t.byQueue[q].head; it != nil; it = it.next {
			inQueues++
			if q == qWaiting && it.at < last {
				return "the queue of what waits is out of order"
			}
			last = it.at
			if l := it.thing.(*leg); l.sess != nil && l.sess.refs <= 0 {
				return "a leg has a session that nothing refers to"
			}
		}
	}
	if inQueues != t.nlegs {
		return "legs are in no queue"
	}
	for k, ws := range t.wait {
		for i, w := range ws {
			if i > 0 && ws[i-1].seq >= w.seq {
				return "waiters out of turn"
			}
			if w.leg != nil && w.leg.q == nil {
				return "a leg that is no more waits"
			}
		}
		if len(ws) == 0 {
			return "nobody waits"
		}
		_ = k
	}
	for i, it := range t.dirt {
		if int(it.dirtyAt) != i+1 {
			return "list of changes"
		}
	}
	for i, it := range t.news {
		if int(it.freshAt) != i+1 {
			return "list of news"
		}
	}
	return ""
}

// NewMemShelf is the shelf that a tracer without another one has.
func NewMemShelf() Shelf { return &memShelf{} }
