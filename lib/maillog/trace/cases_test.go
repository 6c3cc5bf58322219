package trace_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/trace"
)

// The hard cases of mail log correlation, one file each in testdata/cases:
//
//	# what the case is, and where the format was taken from
//	log lines
//	-- once WHY       not run with every line doubled
//	-- ordered WHY    not run with neighbouring lines swapped
//	-- unparsed N     so many lines are Unparsed
//	-- noise N        so many lines are Noise
//	-- options
//	{"year": 2026, "now": RFC 3339, "timezone": NAME,
//	 "own_networks": [CIDR], "outgoing_hosts": [NAME], "filter_relays": [HOST:PORT]}
//	-- rows
//	one JSON object for each row
//
// A row names the columns that matter: null is absent, a text or number is
// equal (complete is 1 or 0), "~text" contains, "text*" begins with. "_" labels
// the row, and "#label" is its id; "!" is any value at all. "*": "1-3" lets the
// object stand for one to three rows. Every row that comes out must be one that
// is listed, and the other way round.
type hardCase struct {
	name            string
	lines           [][]byte
	once, ordered   bool
	unparsed, noise int // -1: not asked for
	parse           maillog.Options
	trace           trace.Options
	rows            []wantRow
}

type wantRow struct {
	text     string
	label    string
	min, max int
	cols     map[string]any
}

func TestHardCases(t *testing.T) {
	files, err := filepath.Glob("testdata/cases/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases:", err)
	}
	seen := map[string]bool{}
	for _, f := range files {
		c := readCase(t, f)
		seen[c.name[:2]] = true
		t.Run(c.name, func(t *testing.T) {
			if t.Run("in order", c.inOrder); t.Failed() {
				return // the others would only say it again
			}
			if !c.once {
				t.Run("doubled", c.doubled)
			}
			if !c.ordered {
				t.Run("swapped", c.swapped)
			}
			t.Run("put aside", c.aside)
			t.Run("cut", func(t *testing.T) { c.cut(t, false, false) })
			t.Run("cut and put aside", func(t *testing.T) { c.cut(t, false, true) })
			t.Run("cut with rows put", func(t *testing.T) { c.cut(t, true, false) })
			t.Run("replayed", c.replayed)
		})
	}
	for i := 1; i <= 49; i++ {
		if !seen[fmt.Sprintf("%02d", i)] {
			t.Errorf("case %d has no file", i)
		}
	}
}

func (c *hardCase) inOrder(t *testing.T) {
	rows := keeper{}
	unparsed, noise := c.run(trace.New(c.trace, rows), c.lines)
	c.check(t, rows, nil)
	if c.unparsed >= 0 && len(unparsed) != c.unparsed {
		t.Errorf("%d lines unparsed, want %d:\n%s", len(unparsed), c.unparsed, bytes.Join(unparsed, []byte("\n")))
	}
	if c.noise >= 0 && len(noise) != c.noise {
		t.Errorf("%d lines noise, want %d:\n%s", len(noise), c.noise, bytes.Join(noise, []byte("\n")))
	}
}

// doubled sends every line twice in a row, as syslog daemons do that lost an
// acknowledgement.
func (c *hardCase) doubled(t *testing.T) {
	var lines [][]byte
	for _, l := range c.lines {
		lines = append(lines, l, l)
	}
	rows := keeper{}
	c.run(trace.New(c.trace, rows), lines)
	c.check(t, rows, map[string]bool{"lines": true, "attempts": true})
}

// swapped swaps each two neighbours that different processes logged within
// 5 s, as syslog daemons do. The time of the first line may move with them.
func (c *hardCase) swapped(t *testing.T) {
	p := maillog.NewParser(c.parse)
	var a, b maillog.Event
	for i := range len(c.lines) - 1 {
		p.Parse(c.lines[i], &a)
		p.Parse(c.lines[i+1], &b)
		if a.PID == b.PID && bytes.Equal(a.Tag, b.Tag) && bytes.Equal(a.Host, b.Host) || b.Time-a.Time > 5e6 {
			continue
		}
		lines := slices.Clone(c.lines)
		lines[i], lines[i+1] = lines[i+1], lines[i]
		rows := keeper{}
		c.run(trace.New(c.trace, rows), lines)
		if c.check(t, rows, map[string]bool{"ts": true}); t.Failed() {
			t.Fatalf("with line %d after line %d:\n%.200s\n%.200s", i+1, i+2, c.lines[i], c.lines[i+1])
		}
	}
}

// cut stops after every line in turn and goes on in a new tracer that knows
// nothing but the saved state, as after a restart.
func (c *hardCase) cut(t *testing.T, sync, aside bool) {
	for at := 0; at <= len(c.lines); at++ {
		rows := keeper{}
		p := maillog.NewParser(c.parse)
		var ev maillog.Event
		first := trace.New(c.trace, rows)
		state := map[string][]byte{}
		save := func(key, data []byte) {
			if data == nil {
				delete(state, string(key))
			} else {
				state[string(key)] = bytes.Clone(data)
			}
		}
		for i, l := range c.lines[:at] {
			p.Parse(l, &ev)
			first.Add(&ev)
			if aside {
				first.RestNow()
			}
			if i%2 == 0 { // state is saved in small steps as well as in one
				first.Changes(save)
			}
		}
		if sync {
			first.Sync()
		}
		first.Changes(save)
		second := trace.New(c.trace, rows)
		for k, v := range state {
			if err := second.Restore([]byte(k), v); err != nil {
				t.Fatalf("cut after line %d: %v", at, err)
			}
		}
		for _, l := range c.lines[at:] {
			p.Parse(l, &ev)
			second.Add(&ev)
			if aside {
				second.RestNow()
			}
		}
		second.Sync()
		if wrong := second.Check(); wrong != "" {
			t.Fatalf("cut after line %d: %s", at, wrong)
		}
		if c.check(t, rows, nil); t.Failed() {
			t.Fatalf("cut after line %d of %d", at, len(c.lines))
		}
	}
}

// aside puts every mail aside after every line.
func (c *hardCase) aside(t *testing.T) {
	rows := keeper{}
	tr := trace.New(c.trace, rows)
	p := maillog.NewParser(c.parse)
	var ev maillog.Event
	for _, l := range c.lines {
		p.Parse(l, &ev)
		tr.Add(&ev)
		tr.RestNow()
		if wrong := tr.Check(); wrong != "" {
			t.Fatal(wrong)
		}
	}
	tr.Sync()
	c.check(t, rows, nil)
}

// replayed reads the log a second time into the same rows: nothing changes.
func (c *hardCase) replayed(t *testing.T) {
	rows := keeper{}
	c.run(trace.New(c.trace, rows), c.lines)
	n := len(rows)
	c.run(trace.New(c.trace, rows), c.lines)
	if len(rows) != n {
		t.Errorf("%d rows, %d after a replay", n, len(rows))
	}
	c.check(t, rows, nil)
}

func (c *hardCase) run(tr *trace.Tracer, lines [][]byte) (unparsed, noise [][]byte) {
	p := maillog.NewParser(c.parse)
	var ev maillog.Event
	for _, l := range lines {
		switch p.Parse(l, &ev) {
		case maillog.Unparsed, maillog.Foreign:
			unparsed = append(unparsed, l)
		case maillog.Noise:
			noise = append(noise, l)
		}
		tr.Add(&ev)
	}
	tr.Sync()
	return unparsed, noise
}

// keeper keeps rows as a store must: a row of fewer lines does not replace
// one of more.
type keeper map[flat.ID]*flat.Row

func (k keeper) Put(r *flat.Row) {
	if old := k[r.ID]; old == nil || r.Lines >= old.Lines {
		k[r.ID] = r.Clone()
	}
}
func (k keeper) Delete(id flat.ID) { delete(k, id) }

// check matches rows with the wanted ones, each with one.
func (c *hardCase) check(t *testing.T, rows keeper, except map[string]bool) {
	t.Helper()
	var got []*flat.Row
	for _, r := range rows {
		got = append(got, r)
	}
	m := matcher{want: c.rows, got: got, by: make([]int, len(got)), count: make([]int, len(c.rows)), except: except}
	if m.match(0) {
		return
	}
	t.Error(m.report())
}

type matcher struct {
	want   []wantRow
	got    []*flat.Row
	by     []int // which wanted row a row was matched with
	count  []int // how many rows a wanted one has
	except map[string]bool
}

// match finds a wanted row for the i-th row and all after it.
func (m *matcher) match(i int) bool {
	if i == len(m.got) {
		for w := range m.want {
			if m.count[w] < m.want[w].min {
				return false
			}
		}
		return m.labels()
	}
	for w := range m.want {
		if m.count[w] == m.want[w].max || m.differs(&m.want[w], m.got[i]) != "" {
			continue
		}
		m.count[w]++
		m.by[i] = w
		if m.match(i + 1) {
			return true
		}
		m.count[w]--
	}
	return false
}

// labels checks the columns that hold another row's id.
func (m *matcher) labels() bool {
	ids := map[string]flat.ID{}
	for i, w := range m.by {
		if l := m.want[w].label; l != "" {
			ids["#"+l] = m.got[i].ID
		}
	}
	for i, w := range m.by {
		if ref, ok := m.want[w].cols["parent_id"].(string); ok && ref[0] == '#' && m.got[i].ParentID != ids[ref] {
			return false
		}
	}
	return true
}

// differs names the first column in which r is not what is wanted.
func (m *matcher) differs(w *wantRow, r *flat.Row) string {
	for i := range flat.Columns {
		col := &flat.Columns[i]
		want, ok := w.cols[col.Name]
		if !ok || m.except[col.Name] {
			continue
		}
		null := col.Null(r)
		if want == nil {
			if !null {
				return col.Name
			}
			continue
		}
		if col.Type == flat.Bool {
			if (want == 1.0) != *col.Bool(r) {
				return col.Name
			}
			continue
		}
		if null || !equal(want, text(col, r)) {
			return col.Name
		}
	}
	return ""
}

func equal(want any, got string) bool {
	switch v := want.(type) {
	case float64:
		f, err := strconv.ParseFloat(got, 64)
		return err == nil && math.Abs(f-v) < 1e-6
	case string:
		switch {
		case v == "!" || v[0] == '#':
			return true
		case v[0] == '~':
			return strings.Contains(got, v[1:])
		case v[len(v)-1] == '*':
			return strings.HasPrefix(got, v[:len(v)-1])
		}
		return got == v
	}
	return false
}

// text is a column's value as JSON output has it.
func text(col *flat.Column, r *flat.Row) string {
	switch col.Type {
	case flat.Text:
		return *col.Str(r)
	case flat.Int:
		return strconv.FormatInt(*col.Int(r), 10)
	case flat.Time:
		return time.UnixMilli(*col.Int(r)).UTC().Format("2006-01-02T15:04:05.000Z")
	case flat.Float:
		return strconv.FormatFloat(*col.Float(r), 'g', -1, 64)
	case flat.Bool:
		if *col.Bool(r) {
			return "1"
		}
		return "0"
	case flat.RowID:
		return col.ID(r).String()
	}
	return "?"
}

// report says what does not fit: rows nobody asked for, rows that are missing,
// and by which column the nearest pairs differ.
func (m *matcher) report() string {
	var b strings.Builder
	used := make([]bool, len(m.got))
	for w := range m.want {
		n, near := 0, map[string]int{}
		for i, r := range m.got {
			d := m.differs(&m.want[w], r)
			if d == "" && !used[i] && n < m.want[w].max {
				used[i] = true
				n++
			} else if d != "" {
				near[d]++
			}
		}
		if n < m.want[w].min {
			fmt.Fprintf(&b, "no row is %s (differ by %v)\n", m.want[w].text, near)
		}
	}
	for i, r := range m.got {
		if !used[i] {
			fmt.Fprintf(&b, "unexpected: %s\n", short(r))
		}
	}
	if b.Len() == 0 {
		b.WriteString("the rows are right but for parent_id\n")
		for _, r := range m.got {
			fmt.Fprintf(&b, "%s\n", short(r))
		}
	}
	return b.String()
}

func short(r *flat.Row) string {
	var b strings.Builder
	for i := range flat.Columns {
		col := &flat.Columns[i]
		if col.Null(r) {
			continue
		}
		v := text(col, r)
		if len(v) > 120 {
			v = v[:120] + "..."
		}
		fmt.Fprintf(&b, "%s=%s ", col.Name, v)
	}
	return b.String()
}

func readCase(t *testing.T, file string) *hardCase {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c := &hardCase{name: strings.TrimSuffix(filepath.Base(file), ".txt"), unparsed: -1, noise: -1}
	c.parse = maillog.Options{Location: time.UTC, Now: time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)}
	section := "lines"
	s := bufio.NewScanner(bytes.NewReader(b))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		l := s.Text()
		word, arg, _ := strings.Cut(strings.TrimPrefix(l, "-- "), " ")
		switch {
		case strings.HasPrefix(l, "-- "):
			switch word {
			case "once":
				c.once = true
			case "ordered":
				c.ordered = true
			case "unparsed":
				c.unparsed, err = strconv.Atoi(arg)
			case "noise":
				c.noise, err = strconv.Atoi(arg)
			case "options", "rows":
				section = word
			default:
				err = fmt.Errorf("unknown section %q", l)
			}
		case section == "lines" && !strings.HasPrefix(l, "#"):
			c.lines = append(c.lines, bytes.Clone(s.Bytes()))
		case section == "options":
			err = c.options(l)
		case section == "rows":
			err = c.row(l)
		}
		if err != nil {
			t.Fatalf("%s: %s: %v", file, l, err)
		}
	}
	return c
}

func (c *hardCase) options(l string) error {
	var o struct {
		Year                          int
		Now, Timezone                 string
		Own_networks                  []netip.Prefix
		Outgoing_hosts, Filter_relays []string
	}
	d := json.NewDecoder(strings.NewReader(l))
	d.DisallowUnknownFields()
	err := d.Decode(&o)
	if err == nil && o.Now != "" {
		c.parse.Now, err = time.Parse(time.RFC3339, o.Now)
	}
	if err == nil && o.Timezone != "" {
		c.parse.Location, err = time.LoadLocation(o.Timezone)
	}
	c.parse.Year = o.Year
	c.trace = trace.Options{OwnNetworks: o.Own_networks, OutgoingHosts: o.Outgoing_hosts, FilterRelays: o.Filter_relays}
	return err
}

func (c *hardCase) row(l string) error {
	w := wantRow{text: l, min: 1, max: 1}
	if err := json.Unmarshal([]byte(l), &w.cols); err != nil {
		return err
	}
	if s, ok := w.cols["_"].(string); ok {
		w.label = s
	}
	if s, ok := w.cols["*"].(string); ok {
		if _, err := fmt.Sscanf(s, "%d-%d", &w.min, &w.max); err != nil {
			return err
		}
	}
	known := map[string]bool{"_": true, "*": true}
	for i := range flat.Columns {
		known[flat.Columns[i].Name] = true
	}
	for k, v := range w.cols {
		if !known[k] {
			return fmt.Errorf("no column %q", k)
		}
		if s, ok := v.(string); ok && s == "" {
			return fmt.Errorf("column %q: an empty text is null", k)
		}
	}
	c.rows = append(c.rows, w)
	return nil
}
