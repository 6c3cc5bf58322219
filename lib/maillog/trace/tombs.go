package trace

import (
	"slices"

	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// tombs remember mails that are done, so that a late line does not look like
// another mail and a notice still finds its parent. It is a cache of fixed
// size: two places for each hash, the older one goes.
type tombs struct {
	at [][2]tomb
}

type tomb struct {
	key uint64 // hash of host and queue id
	us  int64  // log time of the mail's last line
	row flat.ID
}

const tombSets = 1 << 14 // 32,768 mails, 1 MiB

func (ts *tombs) put(tb tomb) {
	if ts.at == nil {
		ts.at = make([][2]tomb, tombSets)
	}
	set := &ts.at[tb.key%tombSets]
	if set[0].key != tb.key {
		set[1] = set[0]
	}
	set[0] = tb
}

func (ts *tombs) get(key uint64) *tomb {
	if ts.at == nil {
		return nil
	}
	set := &ts.at[key%tombSets]
	for i := range set {
		if set[i].key == key && key != 0 {
			return &set[i]
		}
	}
	return nil
}

// graves are how tombs are saved: in pieces that change no more once they are
// large or old enough, and go after a while as they came. A line that comes
// later than that after a restart counts as another mail's.
type grave struct {
	serial uint64
	born   int64 // logClock time
	n      int
	buf    []byte // while more may be added
}

const (
	graveKeep = longAfter + 60*1_000_000 // microseconds
	graveAge  = 1_000_000                // of the log's time in one value
	graveSize = 4 << 10                  // bytes; a value that has as many gets no more
	graveMost = 1000                     // tombs in one value
	tombMost  = 2 * tombSets             // in all values
)

// bury remembers a mail that is done.
func (t *Tracer) bury(tb tomb) {
	t.tombs.put(tb)
	if t.saving {
		if len(t.dead) >= tombMost { // nobody has asked for a long time
			t.dead = slices.Delete(t.dead, 0, tombMost/2)
		}
		t.dead = append(t.dead, tb)
	}
}

// saveTombs gives Changes the mails done since the last one.
func (t *Tracer) saveTombs(f func(key, data []byte)) {
	if !t.saving {
		t.saving = true
		for i := range t.tombs.at {
			for _, tb := range t.tombs.at[i] {
				if tb.key != 0 && tb.us > t.clock.ref-graveKeep {
					t.dead = append(t.dead, tb)
				}
			}
		}
	}
	for all := t.dead; len(all) > 0; {
		n := min(len(all), graveMost)
		g := t.openGrave()
		c := &t.coder
		if g.n == 0 {
			c.encode(func(c *coder) { c.int(&g.born) })
		} else {
			c.decoding, c.version, c.since, c.out = false, stateVersion, 0, append(c.out[:0], g.buf...)
		}
		for i := range all[:n] {
			all[i].code(c)
		}
		g.n += n
		g.buf = append(g.buf[:0], c.out...)
		f(stateKey('T', g.serial), g.buf)
		all = all[n:]
	}
	t.dead = t.dead[:0]
}

// openGrave is the value for the next tombs.
func (t *Tracer) openGrave() *grave {
	if n := len(t.graves); n > 0 {
		g := &t.graves[n-1]
		if g.buf != nil && len(g.buf) < graveSize && t.clock.now-g.born < graveAge {
			return g
		}
		g.buf = nil
	}
	t.graves = append(t.graves, grave{serial: t.next(), born: t.clock.now})
	return &t.graves[len(t.graves)-1]
}

// trimTombs lets go of values that are too old or too many.
func (t *Tracer) trimTombs() {
	all := 0
	for i := range t.graves {
		all += t.graves[i].n
	}
	k := 0
	for ; k < len(t.graves) && (t.graves[k].born < t.clock.now-graveKeep || all > tombMost); k++ {
		all -= t.graves[k].n
		t.forget('T', t.graves[k].serial)
	}
	t.graves = slices.Delete(t.graves, 0, k)
}

func (tb *tomb) code(c *coder) {
	c.hash(&tb.key)
	c.int(&tb.us)
	if !c.decoding {
		c.out = append(c.out, tb.row[:]...)
		return
	}
	if len(c.in) < len(tb.row) {
		c.bad, c.in = true, nil
		return
	}
	copy(tb.row[:], c.in)
	c.in = c.in[len(tb.row):]
}

// code reads a value of tombs and hands them to f.
func (g *grave) code(c *coder, f func(tomb)) {
	c.int(&g.born)
	for len(c.in) > 0 && !c.bad {
		var tb tomb
		if tb.code(c); !c.bad {
			g.n++
			f(tb)
		}
	}
}

// restoreTombs takes back a value of tombs.
func (t *Tracer) restoreTombs(s *saved) {
	g := grave{serial: s.serial}
	t.coder.read(s)
	g.code(&t.coder, func(tb tomb) { t.tombs.put(tb) })
	t.saving = true
	t.graves = append(t.graves, g)
}
