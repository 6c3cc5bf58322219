package trace

// Sync puts the rows of everything that is open and has changed since they
// were last put. What it costs is what has changed.
func (t *Tracer) Sync() {
	if t.settleDown(); t.err != nil {
		return
	}
	// a row may give a notice its parent, and that one's row the next
	for n := maxNotices*len(t.news) + 1; n > 0 && len(t.news) > 0; n-- {
		it := t.news[len(t.news)-1]
		t.shown(it)
		if !t.syncItem(it) {
			t.later = append(t.later, it)
		}
	}
	for i, it := range t.later {
		t.fresh(it)
		t.later[i] = nil
	}
	t.later = t.later[:0]
}

// syncItem puts the rows of one thing. It reports false when nothing can be said
// about it before something else has ended.
func (t *Tracer) syncItem(it *item) bool {
	switch x := it.thing.(type) {
	case *leg:
		if x.from != nil {
			return true // the first leg of the chain has the rows
		}
		had := len(x.ids)
		t.rows(x, false)
		if it.freshAt > 0 { // its session goes on
			t.shown(it)
			if had > 0 {
				t.dirty(it)
			}
			return false
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
	return true
}
