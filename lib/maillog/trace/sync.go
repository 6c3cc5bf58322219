package trace

// Sync puts the rows of everything that is open and has changed since they
// were last put. What it costs is what has changed.
func (t *Tracer) Sync() {
	if t.pending != nil {
		t.relink()
	}
	// a row may give a notice its parent, and that one's row the next
	for n := maxNotices*len(t.news) + 1; n > 0 && len(t.news) > 0; n-- {
		it := t.news[len(t.news)-1]
		t.shown(it)
		t.syncItem(it)
	}
	for i, it := range t.later {
		t.fresh(it)
		t.later[i] = nil
	}
	t.later = t.later[:0]
}

func (t *Tracer) syncItem(it *item) {
	switch x := it.thing.(type) {
	case *leg:
		if x.from != nil {
			return // the first leg of the chain has the rows
		}
		had := len(x.ids)
		t.rows(x, false)
		if it.freshAt > 0 { // nothing can be said before its session ends
			t.shown(it)
			t.later = append(t.later, it)
			if had == 0 {
				return
			}
		}
		t.dirty(it)
	case *scan:
		if x.leg == nil && x.whole() {
			t.scanRows(x, false)
			t.dirty(it)
		}
	case *session:
		if x.stale && x.refs <= 0 && x.q == &t.byQueue[qEnded] {
			t.sessionRow(x)
			t.dirty(it)
		}
	}
}
