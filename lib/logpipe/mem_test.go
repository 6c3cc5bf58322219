package logpipe

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store"
)

// memory is a store that keeps everything in maps, by the rules of package
// store: a batch is taken whole or not at all, and a row is replaced by one
// that has no fewer lines.
type memory struct {
	mu        sync.Mutex
	rows      map[flat.ID]*flat.Row
	state     map[string][]byte
	positions map[[32]byte]store.Position

	commits, finishes int
	changed           int   // rows that a commit has really changed
	failAt            int   // the commit with this number, from 1, fails
	fail              error // with this
	committed         func(n int)
}

func newMemory() *memory {
	return &memory{
		rows: map[flat.ID]*flat.Row{}, state: map[string][]byte{},
		positions: map[[32]byte]store.Position{},
	}
}

func (m *memory) Load(_ context.Context, state func(key, data []byte) error) ([]store.Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := make([]string, 0, len(m.state))
	for k := range m.state {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		// A store may use its buffers again.
		key, data := []byte(k), bytes.Clone(m.state[k])
		if err := state(key, data); err != nil {
			return nil, err
		}
		clear(key)
		clear(data)
	}
	var all []store.Position
	for _, p := range m.positions {
		all = append(all, p)
	}
	return all, nil
}

func (m *memory) Commit(ctx context.Context, b *store.Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.commits++
	if m.commits == m.failAt {
		return m.fail
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	for _, id := range b.Delete {
		if _, ok := m.rows[id]; ok {
			m.changed++
		}
		delete(m.rows, id)
	}
	for _, r := range b.Rows {
		if slices.Contains(b.Delete, r.ID) {
			return fmt.Errorf("row %s is both put and deleted", r.ID)
		}
		old := m.rows[r.ID]
		if old == nil || r.Lines >= old.Lines && rowText(old) != rowText(r) {
			m.rows[r.ID] = r
			m.changed++
		}
	}
	for _, s := range b.State {
		if s.Data == nil {
			delete(m.state, string(s.Key))
		} else {
			m.state[string(s.Key)] = s.Data
		}
	}
	for _, p := range b.Positions {
		m.positions[p.Prefix] = p
	}
	if m.committed != nil {
		m.committed(m.commits)
	}
	return nil
}

func (m *memory) Finish(context.Context) error { m.finishes++; return nil }

// dump is all rows, sorted.
func (m *memory) dump() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]string, 0, len(m.rows))
	for _, r := range m.rows {
		all = append(all, rowText(r))
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// rowText is a row as text, what is absent left out.
func rowText(r *flat.Row) string {
	var b strings.Builder
	for i := range flat.Columns {
		c := &flat.Columns[i]
		if c.Null(r) {
			continue
		}
		fmt.Fprintf(&b, " %s=", c.Name)
		switch c.Type {
		case flat.Text:
			fmt.Fprintf(&b, "%q", *c.Str(r))
		case flat.Int, flat.Time:
			fmt.Fprint(&b, *c.Int(r))
		case flat.Float:
			fmt.Fprint(&b, *c.Float(r))
		case flat.Bool:
			fmt.Fprint(&b, *c.Bool(r))
		case flat.RowID:
			fmt.Fprint(&b, *c.ID(r))
		}
	}
	return b.String()
}

// difference shows where two dumps differ.
func difference(got, want string) string {
	var b strings.Builder
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	n := 0
	for _, l := range g {
		if !slices.Contains(w, l) && n < 5 {
			n++
			fmt.Fprintf(&b, "+%s\n", l)
		}
	}
	for _, l := range w {
		if !slices.Contains(g, l) && n < 10 {
			n++
			fmt.Fprintf(&b, "-%s\n", l)
		}
	}
	return fmt.Sprintf("%d rows, want %d\n%s", len(g), len(w), b.String())
}
