package store

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store/storetest"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// corpus is rows over some days, in order of id, with what searches trip over.
func corpus(n int) []*flat.Row {
	m := storetest.New(3, noon, 5*86400000/int64(n))
	rng := rand.New(rand.NewPCG(5, 5))
	rows := m.Rows(n)
	for i, r := range rows {
		if a := rng.IntN(3000); a%4 == 0 {
			r.ClientIP = fmt.Sprintf("2001:db8:%x::%x", a%5*0x7f+1, a%9+1)
		} else {
			r.ClientIP = fmt.Sprintf("10.%d.%d.%d", a%3*a%90, a%4, a%251)
		}
		switch rng.IntN(12) {
		case 0:
			r.OrigTo = "info@" + m.Domain()
		case 1:
			r.Dir = flat.DirLocal
			r.Sender = "boss@" + m.Domain()
			r.SenderDomain = flat.Domain(r.Sender)
		case 2: // a forged sender
			r.Dir = flat.DirIn
			r.Sender = "boss@" + m.Domain()
			r.SenderDomain = flat.Domain(r.Sender)
		case 3:
			r.Sender, r.SenderDomain = "", ""
			r.ParentID = rows[rng.IntN(i+1)].ID
		case 4:
			r.Rcpt, r.RcptDomain = "root", ""
		case 5:
			r.Verdict = "SPAM"
			r.Subject = "Größe nicht EGAL"
		case 6:
			r.Rcpt = "postmaster@xn--bcher-kva.example"
			r.RcptDomain = flat.Domain(r.Rcpt)
		case 8:
			r.Dir, r.Sender, r.SenderDomain = flat.DirOut, "a@customer0.example", "customer0.example"
			r.Rcpt = fmt.Sprintf("b@customer%d.example", rng.IntN(4))
			r.RcptDomain = flat.Domain(r.Rcpt)
		case 7:
			r.Rcpt = "Jürgen@bücher.example"
			r.RcptDomain = flat.Domain(r.Rcpt)
		}
	}
	slices.SortFunc(rows, func(a, b *flat.Row) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return rows
}

// tenantSees is the rule of the design, written once more.
func tenantSees(r *flat.Row, names ...string) bool {
	to := slices.Contains(names, r.RcptDomain)
	from := slices.Contains(names, r.SenderDomain) && r.Dir != flat.DirIn
	return to || from
}

type wanted struct {
	name string
	q    Query
	want func(*flat.Row) bool
}

func wantedOf(rows []*flat.Row) []wanted {
	pick := func(ok func(*flat.Row) bool) *flat.Row {
		i := slices.IndexFunc(rows[len(rows)/2:], ok)
		return rows[len(rows)/2+i]
	}
	mail := pick(func(r *flat.Row) bool {
		return r.QIDOut != "" && r.RemoteQID != "" && r.Sender != "" && r.RcptDomain != "" && !strings.Contains(r.RcptDomain, "cher")
	})
	alias := pick(func(r *flat.Row) bool { return r.OrigTo != "" })
	child := pick(func(r *flat.Row) bool { return !r.ParentID.IsZero() })
	four := pick(func(r *flat.Row) bool { return strings.HasPrefix(r.ClientIP, "10.") })
	six := pick(func(r *flat.Row) bool { return strings.HasPrefix(r.ClientIP, "2001") })
	inNet := func(s string) func(*flat.Row) bool {
		p := netip.MustParsePrefix(s)
		return func(r *flat.Row) bool { a, err := netip.ParseAddr(r.ClientIP); return err == nil && p.Contains(a) }
	}
	eqFold := strings.EqualFold
	all := []wanted{
		{"everything", Query{}, func(*flat.Row) bool { return true }},
		{"span", Query{Since: rows[100].TS, Until: rows[900].TS}, func(r *flat.Row) bool { return r.TS >= rows[100].TS && r.TS < rows[900].TS }},
		{"qid_in", Query{QueueID: mail.QIDIn}, func(r *flat.Row) bool { return r.QIDIn == mail.QIDIn }},
		{"qid_out", Query{QueueID: mail.QIDOut}, func(r *flat.Row) bool { return r.QIDOut == mail.QIDOut }},
		{"remote_qid", Query{QueueID: mail.RemoteQID}, func(r *flat.Row) bool { return r.RemoteQID == mail.RemoteQID }},
		{"msgid", Query{MessageID: "<" + mail.MsgID + ">"}, func(r *flat.Row) bool { return r.MsgID == mail.MsgID }},
		{"address", Query{Rcpt: strings.ToUpper(mail.Rcpt)}, func(r *flat.Row) bool { return eqFold(r.Rcpt, mail.Rcpt) || eqFold(r.OrigTo, mail.Rcpt) }},
		{"before aliases", Query{Rcpt: alias.OrigTo}, func(r *flat.Row) bool { return eqFold(r.Rcpt, alias.OrigTo) || r.OrigTo == alias.OrigTo }},
		{"@domain", Query{Rcpt: "@" + mail.RcptDomain}, func(r *flat.Row) bool { return r.RcptDomain == mail.RcptDomain }},
		{"*@domain", Query{Sender: "*@" + mail.SenderDomain}, func(r *flat.Row) bool { return r.SenderDomain == mail.SenderDomain }},
		{"user@", Query{Rcpt: "user.7@"}, func(r *flat.Row) bool { return strings.HasPrefix(strings.ToLower(r.Rcpt), "user.7@") }},
		{"user*", Query{Rcpt: "USER.7*@*"}, func(r *flat.Row) bool { return strings.HasPrefix(r.Rcpt, "User.7") }},
		{"*part*", Query{Sender: "*99@sender1*"}, func(r *flat.Row) bool { return strings.Contains(r.Sender, "99@sender1") }},
		{"no @", Query{Rcpt: "root"}, func(r *flat.Row) bool { return r.Rcpt == "root" }},
		{"null sender", Query{Sender: "<>"}, func(r *flat.Row) bool { return r.Sender == "" && r.Rcpt != "" }},
		{"U-label", Query{Rcpt: "@BÜCHER.example"}, func(r *flat.Row) bool { return strings.Contains(r.RcptDomain, "cher") }},
		{"A-label", Query{Rcpt: "@xn--bcher-kva.example"}, func(r *flat.Row) bool { return strings.Contains(r.RcptDomain, "cher") }},
		{"UTF-8 address", Query{Rcpt: "JÜRGEN@xn--bcher-kva.example"}, func(r *flat.Row) bool { return r.Rcpt == "Jürgen@bücher.example" }},
		{"address with both forms", Query{Rcpt: "postmaster@bücher.example"}, func(r *flat.Row) bool { return strings.HasPrefix(r.Rcpt, "postmaster@xn") }},
		{"client", Query{Client: four.ClientIP}, func(r *flat.Row) bool { return r.ClientIP == four.ClientIP }},
		{"client 6", Query{Client: "[" + strings.ToUpper(six.ClientIP) + "]"}, func(r *flat.Row) bool { return r.ClientIP == six.ClientIP }},
		{"client name", Query{Client: mail.ClientName}, func(r *flat.Row) bool { return r.ClientName == mail.ClientName }},
		{"client pattern", Query{Client: "mail-b*.example.org"}, func(r *flat.Row) bool { return strings.HasPrefix(strings.ToLower(r.ClientName), "mail-b") }},
		{"helo", Query{Helo: strings.ToUpper(mail.Helo)}, func(r *flat.Row) bool { return r.Helo == mail.Helo }},
		{"helo pattern", Query{Helo: "*sender7*"}, func(r *flat.Row) bool { return strings.Contains(r.Helo, "sender7") }},
		{"outcome", Query{Outcomes: []string{"BOUNCED", "aborted"}}, func(r *flat.Row) bool { return r.Outcome == flat.Bounced || r.Outcome == flat.Aborted }},
		{"kind and verdict", Query{Kinds: []string{"mail"}, Verdicts: []string{"spam"}}, func(r *flat.Row) bool { return r.Kind == flat.KindMail && r.Verdict == "SPAM" }},
		{"text", Query{Text: "größe EGAL"}, func(r *flat.Row) bool { return r.Subject != "" }},
		{"text within", Query{Text: "ZEN.dnsbl 10.1"}, func(r *flat.Row) bool {
			return strings.Contains(r.Reason, "zen.dnsbl") && strings.Contains(r.Reason+r.ClientIP, "10.1")
		}},
		{"children", Query{ParentID: child.ParentID}, func(r *flat.Row) bool { return r.ParentID == child.ParentID }},
		{"tenant", Query{Domain: "Customer0.Example."}, func(r *flat.Row) bool { return tenantSees(r, "customer0.example") }},
		{"tenant U", Query{Domain: "Bücher.example"}, func(r *flat.Row) bool { return tenantSees(r, "bücher.example", "xn--bcher-kva.example") }},
		{"tenant A", Query{Domain: "XN--BCHER-KVA.example"}, func(r *flat.Row) bool { return tenantSees(r, "bücher.example", "xn--bcher-kva.example") }},
		{"tenant to others", Query{Domain: "customer0.example", Rcpt: "@customer1.example"}, func(r *flat.Row) bool {
			return tenantSees(r, "customer0.example") && r.RcptDomain == "customer1.example"
		}},
		{"tenant from others", Query{Domain: "customer0.example", Sender: "boss@customer1.example"}, func(r *flat.Row) bool {
			return tenantSees(r, "customer0.example") && r.Sender == "boss@customer1.example"
		}},
		{"tenant from own", Query{Domain: "customer0.example", Sender: "boss@"}, func(r *flat.Row) bool {
			return tenantSees(r, "customer0.example") && strings.HasPrefix(r.Sender, "boss@")
		}},
		{
			"others among themselves",
			Query{Domain: "customer0.example", Sender: "@customer1.example", Rcpt: "@customer2.example"},
			func(*flat.Row) bool { return false },
		},
		{"tenant and outcome", Query{Domain: "customer0.example", Outcomes: []string{"rejected"}}, func(r *flat.Row) bool {
			return tenantSees(r, "customer0.example") && r.Outcome == flat.Rejected
		}},
		{"tenant null sender", Query{Domain: "customer0.example", Sender: "<>"}, func(r *flat.Row) bool {
			return r.RcptDomain == "customer0.example" && r.Sender == ""
		}},
	}
	for _, n := range []string{
		"0.0.0.0/0", "10.0.0.0/8", "10.64.0.0/11", "10.0.0.0/9", "10.1.0.0/16", "10.0.0.0/17", "10.1.0.0/22", "10.1.1.0/24",
		"10.1.1.128/25", "10.1.1.0/31", "128.0.0.0/1", "::/0", "2001:db8::/32", "2001:db8::/29", "2001:db8:10::/44",
		"2001:db8:1::/48", "2001:db8:80::/48", "2001:db8:1::/127", "2000::/3", "fe80::/10",
	} {
		all = append(all, wanted{"net " + n, Query{Client: n}, inNet(n)})
	}
	return all
}

// blank is a row as the query's tenant sees it.
func blank(r *flat.Row, q *Query) *flat.Row {
	if q.Domain != "" && r.OrigTo != "" && !tenantSees(&flat.Row{SenderDomain: r.SenderDomain, Dir: r.Dir}, ownNames(q)...) &&
		!slices.Contains(ownNames(q), flat.Domain(r.OrigTo)) {
		c := *r
		c.OrigTo = ""
		return &c
	}
	return r
}

func ownNames(q *Query) []string {
	if strings.Contains(strings.ToLower(q.Domain), "cher") {
		return []string{"bücher.example", "xn--bcher-kva.example"}
	}
	return []string{strings.TrimSuffix(strings.ToLower(q.Domain), ".")}
}

func checkSearch(t *testing.T, db *DB, rows []*flat.Row, w wanted, rng *rand.Rand) {
	t.Helper()
	var want []*flat.Row
	for _, r := range rows {
		if w.want(r) {
			want = append(want, blank(r, &w.q))
		}
	}
	for _, oldest := range []bool{true, false} {
		q := w.q
		q.OldestFirst = oldest
		if !oldest {
			slices.Reverse(want)
		}
		check := func(what string, got []*flat.Row) {
			t.Helper()
			if len(got) != len(want) {
				t.Errorf("%s, %s, oldest first %v: %d rows, want %d", w.name, what, oldest, len(got), len(want))
				return
			}
			for i := range want {
				if !same(got[i], want[i]) {
					t.Errorf("%s, %s, oldest first %v: row %d of %d: %s", w.name, what, oldest, i, len(got), differ(got[i], want[i]))
					return
				}
			}
		}
		check("at once", find(t, db, &q))
		var got []*flat.Row
		for {
			q.Limit = 1 + rng.IntN(300)
			part, next := findPage(t, db, &q)
			got = append(got, part...)
			if next.IsZero() {
				break
			}
			q.After = next
		}
		check("in pages", got)
	}
}

// Every search finds exactly what going over all rows finds, whether days have
// their indexes or not, or some of them.
func TestSearchFindsWhatIsThere(t *testing.T) { onBoth(t, testSearchFindsWhatIsThere) }

func testSearchFindsWhatIsThere(t *testing.T, k kind) {
	rows := corpus(max(2500/scale, 1000))
	db := k.open(t)
	commit(t, db, &Batch{Rows: rows})
	rng := rand.New(rand.NewPCG(1, 2))
	for _, state := range []string{"no indexes", "one day without", "all indexes", "read-only"} {
		switch state {
		case "one day without":
			finish(t, db)
			for _, x := range indexes[:3] {
				dropIndex(t, db, "20261125", x)
			}
		case "all indexes":
			finish(t, db)
		case "read-only":
			path := db.Where()
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			db = openAt(t, path, ReadOnly)
		}
		if k.name == "mysql" && state == "read-only" {
			continue // a reader is the same whoever else writes
		}
		t.Run(state, func(t *testing.T) {
			for i, w := range wantedOf(rows) {
				if i%scale != 0 {
					continue
				}
				checkSearch(t, db, rows, w, rng)
			}
		})
	}
}

// The corpus must not be such that the test above proves nothing.
func TestSearchesFindSomething(t *testing.T) {
	rows := corpus(2500)
	empty := []string{"others among themselves", "net 128.0.0.0/1", "net fe80::/10", "net 10.1.1.0/31", "net 2001:db8:10::/44"}
	for _, w := range wantedOf(rows) {
		n := 0
		for _, r := range rows {
			if w.want(r) {
				n++
			}
		}
		if n == 0 && !slices.Contains(empty, w.name) {
			t.Errorf("%s: nothing to find", w.name)
		}
	}
}

func TestDenseNetworks(t *testing.T) { onBoth(t, testDenseNetworks) }

func testDenseNetworks(t *testing.T, k kind) {
	db := k.open(t)
	var rows []*flat.Row
	for i := range maxSpan + 500 {
		rows = append(rows, row(noon+int64(i), uint64(i), func(r *flat.Row) { r.ClientIP = fmt.Sprintf("192.0.2.%d", i%256) }))
	}
	commit(t, db, &Batch{Rows: rows})
	finish(t, db)
	if got := find(t, db, &Query{Client: "192.0.2.0/24"}); len(got) != len(rows) {
		t.Errorf("%d of %d rows", len(got), len(rows))
	}
	got, next := findPage(t, db, &Query{Client: "192.0.2.128/25", Limit: 10})
	if len(got) != 10 || got[0].ClientIP != "192.0.2.255" && got[0].TS < noon+maxSpan || next.IsZero() {
		t.Errorf("%d rows, the first %+v", len(got), got[0])
	}
}

// A page stays as it is when rows come in while somebody turns pages.
func TestPagesAreStable(t *testing.T) { onBoth(t, testPagesAreStable) }

func testPagesAreStable(t *testing.T, k kind) {
	db := k.open(t)
	var rows []*flat.Row
	for i := range 100 {
		rows = append(rows, row(noon+int64(i)*1000, 1, nil))
	}
	commit(t, db, &Batch{Rows: rows})
	var got []*flat.Row
	q := &Query{Limit: 10}
	for i := 0; ; i++ {
		part, next := findPage(t, db, q)
		got = append(got, part...)
		if next.IsZero() {
			break
		}
		q.After = next
		commit(t, db, &Batch{Rows: []*flat.Row{row(noon+int64(i)+200_000, 5, nil)}})
	}
	if len(got) != 100 || got[0].ID != rows[99].ID || got[99].ID != rows[0].ID {
		t.Errorf("%d rows", len(got))
	}
}

// A search may write to the same database between its rows.
func TestWritingWhileReading(t *testing.T) { onBoth(t, testWritingWhileReading) }

func testWritingWhileReading(t *testing.T, k kind) {
	db := k.open(t)
	rows := storetest.New(1, noon, 1000).Rows(1000)
	commit(t, db, &Batch{Rows: rows})
	res, err := db.Search(t.Context(), &Query{})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for r, err := range res.All() {
		if err != nil {
			t.Fatal(err)
		}
		n++
		commit(t, db, &Batch{Delete: []flat.ID{r.ID}})
	}
	if n != len(rows) {
		t.Errorf("%d rows", n)
	}
	if left := find(t, db, &Query{}); len(left) != 0 {
		t.Errorf("%d rows are left", len(left))
	}
}

func TestQueriesThatAreNone(t *testing.T) { onBoth(t, testQueriesThatAreNone) }

func testQueriesThatAreNone(t *testing.T, k kind) {
	db := k.open(t)
	for _, q := range []Query{
		{Limit: -1},
		{Client: "10.0.0.0/33"},
		{Client: "300.0.0.0/8"},
		{Sender: "@"},
		{Outcomes: []string{""}},
		{Domain: "*"},
		{Domain: "@example.com"},
		{Domain: "."},
		{Domain: " "},
		{Domain: "a..b"},
		{Domain: strings.Repeat("a", 300)},
	} {
		if _, err := db.Search(t.Context(), &q); sysexits.Status(err) != sysexits.Usage {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

func TestOddSpans(t *testing.T) { onBoth(t, testOddSpans) }

func testOddSpans(t *testing.T, k kind) {
	db := k.open(t)
	commit(t, db, &Batch{Rows: []*flat.Row{row(noon, 1, nil), row(0, 9, nil)}})
	for _, tt := range []struct {
		q    Query
		want int
	}{
		{Query{Since: -5}, 2},
		{Query{Until: -5}, 0},
		{Query{Since: 1 << 62}, 0},
		{Query{Until: 1 << 62}, 2},
		{Query{Since: noon, Until: noon}, 0},
		{Query{Since: noon + 1, Until: noon - 1}, 0},
		{Query{Since: noon, Until: noon + 1}, 1},
		{Query{After: storetest.ID(noon, 1)}, 1},
		{Query{After: storetest.ID(noon, 1), OldestFirst: true}, 0},
		{Query{After: storetest.ID(noon+5, 1), Until: noon}, 1},
		{Query{After: flat.MakeID(1<<48-1, ^uint64(0), ^uint64(0)), OldestFirst: true}, 0},
	} {
		if got := find(t, db, &tt.q); len(got) != tt.want {
			t.Errorf("%+v: %d rows, want %d", tt.q, len(got), tt.want)
		}
	}
}
