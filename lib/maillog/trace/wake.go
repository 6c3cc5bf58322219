package trace

import "slices"

// wake takes back what is put aside and known by a hash.
func (t *Tracer) wake(h uint64) {
	if t.shelf.n == 0 {
		return
	}
	t.found = t.shelf.index.find(fingerprint(h), t.found[:0])
	for i := 0; i < len(t.found) && t.err == nil; i++ {
		id := t.found[i]
		if _, ok := t.fromShelf(id); ok && slices.Contains(t.keys, h) {
			t.takeBack(id)
		}
	}
}

// fromShelf reads what is under an entry, its header into t.keys. The bytes are
// good until the next call.
func (t *Tracer) fromShelf(id uint32) (data []byte, ok bool) {
	data, err := t.opt.Shelf.Get(t.shelf.entry(id).slot, t.taken)
	if err != nil {
		t.err = lost(err)
		return nil, false
	}
	t.taken = data
	if _, ok := t.unpack(data); !ok {
		t.err = lost(errDamaged)
		return nil, false
	}
	return data, true
}

// unshelve forgets an entry that t.keys find.
func (t *Tracer) unshelve(id uint32) {
	e := t.shelf.entry(id)
	for _, k := range t.keys {
		t.shelf.index.remove(fingerprint(k), id)
	}
	t.opt.Shelf.Drop(e.slot)
	t.shelf.remove(id)
}

// takeBack makes objects of what fromShelf has just read.
func (t *Tracer) takeBack(id uint32) {
	e := *t.shelf.entry(id)
	var b *base
	switch {
	case e.unsavedAt == 0:
		b = &base{serial: e.serial}
	case e.old:
		t.forget('C', e.serial) // an earlier one
	}
	k := t.link
	k.reset()
	ok := t.members(func(m saved) {
		m.base = b
		k.revive(&m)
	})
	if !ok {
		t.err = lost(errDamaged)
		return
	}
	t.unshelve(id)
	k.join()
	if b == nil {
		for i := range k.all {
			t.dirty(k.all[i].it)
		}
	}
}

// saveAside gives Changes what was put aside since the last one.
func (t *Tracer) saveAside(f func(key, data []byte)) {
	for len(t.shelf.unsaved) > 0 && t.err == nil {
		id := t.shelf.unsaved[len(t.shelf.unsaved)-1]
		data, ok := t.fromShelf(id)
		if !ok {
			return
		}
		e := t.shelf.entry(id)
		f(stateKey('C', e.serial), data)
		e.old = true
		t.shelf.saved(id)
	}
}

// restoreAside takes back a value that mails put aside were saved as: straight
// to the shelf.
func (t *Tracer) restoreAside(serial uint64, data []byte) error {
	e, ok := t.unpack(data)
	if !ok {
		return errDamaged
	}
	e.serial, e.old = serial, true
	slot, err := t.opt.Shelf.Put(data)
	if err == nil {
		e.slot = slot
		if _, ok := t.enter(e); ok {
			return nil
		}
		t.opt.Shelf.Drop(slot)
	} else {
		t.stats.ShelfErrors++
		t.shelfErr = err
	}
	// no room there: in memory there is
	b := &base{serial: serial}
	t.pending = append(t.pending, t.allMembers(b)...)
	return nil
}

// eachOld calls f for what was put aside, and is due by the age of mails,
// after taking it back.
func (t *Tracer) eachOld(age int64, f func()) {
	for t.shelf.n > 0 && t.err == nil {
		id := t.shelf.heap[0]
		if t.clock.log-t.shelf.entry(id).at <= age {
			return
		}
		if _, ok := t.fromShelf(id); ok {
			t.takeBack(id)
			f()
		}
	}
}
