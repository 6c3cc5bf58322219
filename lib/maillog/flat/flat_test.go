package flat

import (
	"bytes"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

// design is the order and the names of the columns as every store, query and
// output has them. They are fixed.
const design = `id ts ts_final kind direction outcome complete evidence host_in instance_in qid_in host_filter host_out qid_out
client_ip client_name client_port helo proto tls sasl_user country sender sender_domain rcpt rcpt_domain orig_to msgid subject size nrcpt
stage smtp_code dsn reason verdict score mail_id quarantine policy scan_ms relay relay_ip remote_qid attempts
delay delay_before delay_queue delay_conn delay_tx total_ms delivery_ms parent_id lines`

func TestColumnsAreTheDesigns(t *testing.T) {
	var got []string
	for _, c := range Columns {
		got = append(got, c.Name)
	}
	if want := strings.Fields(design); !reflect.DeepEqual(got, want) {
		t.Errorf("columns are\n%v\nwant\n%v", got, want)
	}
}

// Each column must have an accessor of its type, to a field of its own.
func TestColumnsNameEveryField(t *testing.T) {
	var r Row
	seen := map[any]string{}
	for i := range Columns {
		c := &Columns[i]
		var p any
		switch c.Type {
		case Text:
			p = c.Str(&r)
			if c.Max < 1 {
				t.Errorf("%s has no bound", c.Name)
			}
		case Int, Time:
			p = c.Int(&r)
		case Float:
			p = c.Float(&r)
		case Bool:
			p = c.Bool(&r)
		case RowID:
			p = c.ID(&r)
		}
		if other, ok := seen[p]; ok {
			t.Errorf("%s and %s are one field", c.Name, other)
		}
		seen[p] = c.Name
	}
	if n := reflect.TypeFor[Row]().NumField(); n != len(seen) {
		t.Errorf("%d columns for %d fields", len(seen), n)
	}
}

func TestClearedRowIsNull(t *testing.T) {
	var r Row
	r.Lines, r.Sender = 5, "x"
	r.Clear()
	for i := range Columns {
		if c := &Columns[i]; !c.Null(&r) && c.Name != "complete" && c.Name != "lines" {
			t.Errorf("%s is not null in a cleared row", c.Name)
		}
	}
}

func TestIDSortsByTimeAndComesBack(t *testing.T) {
	early := MakeID(1795455561957, math.MaxUint64, math.MaxUint64)
	late := MakeID(1795455561958, 0, 0)
	if bytes.Compare(early[:], late[:]) >= 0 {
		t.Error("ids do not sort by time")
	}
	if ms := early.UnixMilli(); ms != 1795455561957 {
		t.Errorf("time %d, want 1795455561957", ms)
	}
	back, err := ParseID(early.String())
	if err != nil || back != early {
		t.Errorf("%v, %v", back, err)
	}
	for _, s := range []string{"", "x", strings.Repeat("g", 32), strings.Repeat("0", 31)} {
		if _, err := ParseID(s); err == nil {
			t.Errorf("%q is taken for an id", s)
		}
	}
	if Day(time.Date(2026, 11, 23, 23, 59, 59, 0, time.UTC).UnixMilli()) != "20261123" {
		t.Error("the day is not UTC's")
	}
}

func TestCloneOutlivesItsSource(t *testing.T) {
	var r Row
	r.Clear()
	buf := []byte("s@example.net|r@example.com")
	r.Sender, r.Rcpt, r.Size = string(buf[:13]), string(buf[14:]), 42
	c := r.Clone()
	r.Sender, r.Rcpt = "gone", "gone"
	if c.Sender != "s@example.net" || c.Rcpt != "r@example.com" || c.Size != 42 || c.Helo != "" {
		t.Errorf("%+v", c)
	}
	if n := testing.AllocsPerRun(10, func() { c.Clone() }); n > 2 {
		t.Errorf("a clone takes %v allocations, want 2", n)
	}
}

func TestDomain(t *testing.T) {
	for addr, want := range map[string]string{
		"a@Example.COM": "example.com", `"a@b"@example.net`: "example.net", "postmaster": "", "": "", "a@": "", "x@müller.example": "müller.example",
	} {
		if got := Domain(addr); got != want {
			t.Errorf("Domain(%q) = %q, want %q", addr, got, want)
		}
	}
}
