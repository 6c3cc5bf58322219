package store

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store/lite"
	"github.com/rolmail/rolmail/lib/maillog/store/storetest"
)

// explain is the query plan of a statement, one step a line.
func explain(t *testing.T, db *DB, sql string) string {
	t.Helper()
	var steps []string
	err := each(sqlite(db).w.c, "EXPLAIN QUERY PLAN "+sql, func(s *lite.Stmt) error {
		steps = append(steps, s.Text(3))
		return nil
	})
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return strings.Join(steps, "\n")
}

// Every search that has an index uses it, alone and without sorting; every
// other one walks the day in order of id.
func TestQueryPlans(t *testing.T) {
	db := openTemp(t)
	commit(t, db, &Batch{Rows: storetest.New(1, noon, 10).Rows(300)})
	finish(t, db)
	day := flat.Day(noon)
	table := "maillog_" + day
	cover := "SEARCH " + table + " USING COVERING INDEX " + table + "_"
	for _, tt := range []struct {
		q    Query
		want []string // a plan for each arm
	}{
		{Query{QueueID: "4gX"}, []string{
			cover + "qid_in (qid_in=? AND id>? AND id<?)", cover + "qid_out (qid_out=? AND id>? AND id<?)",
			cover + "remote_qid (remote_qid=? AND id>? AND id<?)",
		}},
		{Query{MessageID: "x@y"}, []string{cover + "msgid (msgid=? AND id>? AND id<?)"}},
		{Query{Client: "192.0.2.1"}, []string{cover + "client_ip (client_ip=? AND id>? AND id<?)"}},
		{Query{Client: "192.0.2.0/24"}, []string{cover + "client_ip (client_ip>? AND client_ip<?)"}},
		{Query{Client: "192.0.2.128/26"}, []string{cover + "client_ip (client_ip=? AND id>? AND id<?)"}},
		{Query{Client: "2001:db8::/32"}, []string{cover + "client_ip (client_ip>? AND client_ip<?)"}},
		{Query{Rcpt: "@example.com"}, []string{cover + "rcpt_domain (rcpt_domain=? AND id>? AND id<?)"}},
		{Query{Rcpt: "anna@example.com"}, []string{
			cover + "rcpt_domain (rcpt_domain=? AND id>? AND id<?)", cover + "orig_to (orig_to=? AND id>? AND id<?)",
		}},
		{Query{Sender: "anna@example.com"}, []string{cover + "sender_domain (sender_domain=? AND id>? AND id<?)"}},
		{Query{Domain: "example.com"}, []string{
			cover + "rcpt_domain (rcpt_domain=? AND id>? AND id<?)", cover + "sender_domain (sender_domain=? AND id>? AND id<?)",
		}},
		{Query{Domain: "example.com", Outcomes: []string{"sent"}, Text: "x", Client: "10.0.0.0/8"}, []string{
			cover + "rcpt_domain (rcpt_domain=? AND id>? AND id<?)", cover + "sender_domain (sender_domain=? AND id>? AND id<?)",
		}},
		{Query{ParentID: storetest.ID(noon, 1)}, []string{cover + "parent_id (parent_id=? AND id>? AND id<?)"}},
	} {
		for _, oldest := range []bool{true, false} {
			tt.q.OldestFirst = oldest
			c, err := compile(&tt.q)
			if err != nil {
				t.Fatal(err)
			}
			if len(c.arms) != len(tt.want) {
				t.Errorf("%+v: %d arms, want %d", tt.q, len(c.arms), len(tt.want))
				continue
			}
			for i := range c.arms {
				if got := explain(t, db, idsSQL(day, &c.arms[i], oldest)); got != tt.want[i] {
					t.Errorf("%+v:\n%s\nwant\n%s", tt.q, got, tt.want[i])
				}
			}
			if got, want := explain(t, db, c.rowSQL(day)), "SEARCH "+table+" USING PRIMARY KEY (id=?)"; got != want {
				t.Errorf("%+v: a row: %s", tt.q, got)
			}
			if got, want := explain(t, db, c.scanSQL(day)), "SEARCH "+table+" USING PRIMARY KEY (id>? AND id<?)"; got != want {
				t.Errorf("%+v: a scan: %s", tt.q, got)
			}
		}
	}
}

// Whatever is asked, no statement calls a function in its WHERE clause or
// joins tables.
func TestStatementsArePlain(t *testing.T) {
	call := regexp.MustCompile(`(?i)(\w+) *\(`)
	for _, w := range wantedOf(corpus(2500)) {
		c, err := compile(&w.q)
		if err != nil {
			t.Fatal(err)
		}
		all := []string{c.scanSQL("20261123"), c.rowSQL("20261123")}
		for i := range c.arms {
			all = append(all, idsSQL("20261123", &c.arms[i], false))
		}
		for _, sql := range all {
			for _, m := range call.FindAllStringSubmatch(sql, -1) {
				if m[1] != "IN" && m[1] != "AND" && m[1] != "OR" {
					t.Errorf("%s: calls %s: %s", w.name, m[1], sql)
				}
			}
			if strings.Contains(sql, "JOIN") || strings.Count(sql, "FROM") != 1 || strings.ContainsAny(sql, `'"`) {
				t.Errorf("%s: %s", w.name, sql)
			}
		}
	}
}

// What SQL is told of an IPv4 network holds for its addresses and no others;
// of an IPv6 one for all of its addresses at least.
func TestNetworkConditions(t *testing.T) {
	db := openTemp(t)
	holds := func(p netip.Prefix, ip string) bool {
		conds := networkConds(p)
		s, err := sqlite(db).w.c.Prepare("SELECT 1 FROM (SELECT ? AS client_ip) WHERE " + sqliteWords.join(conds, " AND "))
		if err != nil {
			t.Fatal(p, err)
		}
		defer s.Close()
		b := binder{s: s, n: 1}
		s.BindText(1, ip)
		b.conds(conds)
		more, err := s.Step()
		if err != nil {
			t.Fatal(p, err)
		}
		return more
	}
	for _, base := range []string{"10.200.3.77", "0.0.0.0", "255.255.255.255", "9.10.99.100"} {
		a := netip.MustParseAddr(base)
		for bits := range 32 {
			p := netip.PrefixFrom(a, bits).Masked()
			first, last := p.Addr(), lastOf(p)
			for _, x := range []netip.Addr{first, last, a} {
				if !holds(p, x.String()) {
					t.Errorf("%s is not in %s", x, p)
				}
			}
			for _, x := range []netip.Addr{first.Prev(), last.Next()} {
				if x.IsValid() && holds(p, x.String()) {
					t.Errorf("%s is in %s", x, p)
				}
			}
		}
	}
	for _, base := range []string{"2001:db8::1", "2001:0:0:5::9", "::1", "fe80::1:0:0:1", "2001:db8:1:2:3:4:5:6", "1:0:0:1::"} {
		a := netip.MustParseAddr(base)
		for bits := range 128 {
			p := netip.PrefixFrom(a, bits).Masked()
			for _, x := range []netip.Addr{p.Addr(), lastOf(p), a} {
				if !holds(p, x.String()) {
					t.Errorf("%s is not in %s", x, p)
				}
			}
		}
	}
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func TestCanonicalIP(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:DB8:0:0::1": "2001:db8::1", "unknown": "unknown",
		"a:b": "a:b", "": "", "2001:db8::1%eth0": "2001:db8::1%eth0", "010.0.0.1": "010.0.0.1",
	} {
		if got := canonicalIP(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestPatterns(t *testing.T) {
	for _, tt := range []struct {
		pattern, s string
		want       bool
	}{
		{"abc", "ABC", true},
		{"abc", "abcd", false},
		{"a*", "ABC", true},
		{"*c", "abc", true},
		{"a*c", "ac", true},
		{"ab*bc", "abc", false},
		{"*", "", false},
		{"*", "x", true},
		{"a*b*c", "aXbYc", true},
		{"a*b*c", "acb", false},
		{"**", "x", true},
		{"*b*", "abc", true},
		{"a.c", "abc", false},
		{"%", "x", false},
		{"ÄB*", "äbc", true},
	} {
		if got := newPattern(tt.pattern).match(tt.s); got != tt.want {
			t.Errorf("%q on %q: %v", tt.pattern, tt.s, got)
		}
	}
}

func TestContainsFold(t *testing.T) {
	for _, tt := range []struct {
		s, lower string
		want     bool
	}{
		{"", "", true},
		{"", "a", false},
		{"xAb", "ab", true},
		{"ÄPFEL", "äpfel", true},
		{"a\x00B", "\x00b", true},
		{"\xff\xfe", "a", false},
		{"STRASSE", "straße", false},
		{"aab", "ab", true},
	} {
		if got := containsFold(tt.s, tt.lower); got != tt.want || containsFold([]byte(tt.s), tt.lower) != got {
			t.Errorf("%q in %q: %v", tt.lower, tt.s, got)
		}
	}
}
