package trace

import "github.com/rolmail/rolmail/lib/maillog/flat"

// Stats counts what the tracer did and holds.
type Stats struct {
	Events, Rows, Late int64     // Late: lines for mails long done
	Ambiguous          int64     // edges with more than one end to choose from
	Evicted            Given     // for want of room
	Expired            Given     // for want of a line
	Outcomes           [10]int64 // rows put, and put again, in the order of flat.Outcomes

	Sessions, Legs, Scans, Waiting int   // open now, those of mails put aside too; Waiting: for the other end of an edge
	Aside, AsideLegs               int   // mails put aside, with what belongs to them, and their legs
	ShelfErrors                    int64 // mails that could not be put aside
	ShelfErr                       error // why; nil when the last one could
}

// Given counts what was given up as incomplete.
type Given struct{ Mails, Sessions, Scans int64 }

// Sum is all of them.
func (g Given) Sum() int64 { return g.Mails + g.Sessions + g.Scans }

// GivenUp is what was given up as incomplete.
func (s *Stats) GivenUp() int64 { return s.Evicted.Sum() + s.Expired.Sum() }

func (s *Stats) count(r *flat.Row) {
	s.Rows++
	for i, o := range flat.Outcomes {
		if o == r.Outcome {
			s.Outcomes[i]++
			break
		}
	}
}

// Stats returns the counters. It is cheap.
func (t *Tracer) Stats() Stats {
	s := t.stats
	s.Sessions, s.Legs, s.Scans, s.Waiting = len(t.sessions), t.nlegs+t.shelf.legs, len(t.scans)+t.shelf.scans, len(t.wait)
	s.Aside, s.AsideLegs, s.ShelfErr = t.shelf.n, t.shelf.legs, t.shelfErr
	return s
}

// Oldest is the log time, in microseconds, of the first line of the mail that
// has been under way longest; 0 when there is none. It looks at all that is
// open: a millisecond for 200,000 mails.
func (t *Tracer) Oldest() int64 {
	first := int64(0)
	look := func(us int64) {
		if first == 0 || us < first {
			first = us
		}
	}
	for _, id := range t.shelf.heap {
		look(t.shelf.entry(id).first)
	}
	for _, q := range [...]int{qOpen, qActive, qWaiting, qParked} {
		for it := t.byQueue[q].head; it != nil; it = it.next {
			look(it.thing.(*leg).first)
		}
	}
	return first
}
