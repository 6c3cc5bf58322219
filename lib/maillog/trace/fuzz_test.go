package trace_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/trace"
)

// strict checks every row that comes out.
type strict struct {
	t    *testing.T
	rows map[flat.ID]bool
}

func (s strict) Put(r *flat.Row) {
	switch r.Kind {
	case flat.KindMail, flat.KindReject, flat.KindAbort:
	default:
		s.t.Errorf("kind %q", r.Kind)
	}
	if !slices.Contains(flat.Outcomes, r.Outcome) {
		s.t.Errorf("outcome %q", r.Outcome)
	}
	if r.Complete && r.TSFinal != 0 && r.Outcome == flat.Unknown {
		s.t.Errorf("complete, and nothing known: %+v", r)
	}
	if r.TSFinal != 0 && r.TSFinal < r.TS {
		s.t.Errorf("ends before it begins: %+v", r)
	}
	if r.ID.IsZero() || r.Lines < 1 {
		s.t.Errorf("no identity or no lines: %+v", r)
	}
	s.rows[r.ID] = true
}

func (s strict) Delete(id flat.ID) { delete(s.rows, id) }

// FuzzTrace feeds any lines, cuts the run in the middle and goes on from the
// saved state: no panic, no row that contradicts itself, nothing beyond the
// bounds.
func FuzzTrace(f *testing.F) {
	files, _ := filepath.Glob(filepath.Join("testdata", "cases", "*.txt"))
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint16(5))
	}
	f.Fuzz(func(t *testing.T, log []byte, cut uint16) {
		opt := trace.Options{MaxSessions: 8, MaxLegs: 12, MaxScans: 6, MaxLinger: 4, MaxRejects: 3, MaxRcpts: 4, FilterRelays: []string{"127.0.0.1:10024"}}
		sink := strict{t, map[flat.ID]bool{}}
		tr := trace.New(opt, sink)
		p := maillog.NewParser(maillog.Options{Location: time.UTC, Now: time.Unix(1795455561, 0)})
		var ev maillog.Event
		for i, l := range bytes.Split(log, []byte("\n")) {
			if i == int(cut) {
				tr = handOver(t, tr, opt, sink)
			}
			p.Parse(l, &ev)
			tr.Add(&ev)
			if i%3 != 0 {
				tr.RestNow()
			}
			if wrong := tr.Check(); wrong != "" {
				t.Fatal(wrong)
			}
			if i%5 == 0 {
				tr.Idle(time.Minute)
			}
			if st := tr.Stats(); st.Legs > 12 || st.Sessions > 8 || st.Scans > 12+6+1 {
				t.Fatalf("beyond the bounds: %+v", st)
			}
		}
		tr.Sync()
		handOver(t, tr, opt, sink).Sync()
	})
}

// handOver puts what is open into a new tracer.
func handOver(t *testing.T, tr *trace.Tracer, opt trace.Options, sink trace.Sink) *trace.Tracer {
	t.Helper()
	tr.Sync()
	next := trace.New(opt, sink)
	tr.Changes(func(key, data []byte) {
		if data == nil {
			return
		}
		if err := next.Restore(key, data); err != nil {
			t.Fatalf("state %q: %v", key, err)
		}
	})
	return next
}

// FuzzRestore feeds any bytes as saved state: an error or a tracer that works.
func FuzzRestore(f *testing.F) {
	tr := trace.New(trace.Options{}, strict{nil, map[flat.ID]bool{}})
	p := maillog.NewParser(maillog.Options{Location: time.UTC})
	var ev maillog.Event
	var meta []byte
	for _, l := range labLog(f, "lab-a")[:900] {
		p.Parse(l, &ev)
		tr.Add(&ev)
	}
	n := 0
	tr.RestNow()
	tr.Changes(func(key, data []byte) {
		if n++; n%20 == 0 || key[0] == 'C' {
			f.Add(slices.Clone(key), slices.Clone(data))
		}
		if key[0] == 'M' {
			meta = slices.Clone(data)
		}
	})
	f.Fuzz(func(t *testing.T, key, data []byte) {
		tr := trace.New(trace.Options{}, rowSet{})
		if len(key) > 0 && key[0] == 'C' && len(data) > 5 { // what the checksum would not let in
			data = slices.Clone(data)
			binary.LittleEndian.PutUint32(data[1:], crc32.Checksum(data[5:], crc32.MakeTable(crc32.Castagnoli)))
		}
		if tr.Restore(key, data) != nil {
			return
		}
		if tr.Restore([]byte("M\x00\x00\x00\x00\x00\x00\x00\x00"), meta) != nil {
			t.Fatal("the value M")
		}
		tr.Sync()
		for _, l := range labLog(t, "lab-a")[100:130] {
			p.Parse(l, &ev)
			tr.Add(&ev)
		}
		tr.Changes(func(key, data []byte) {})
	})
}
