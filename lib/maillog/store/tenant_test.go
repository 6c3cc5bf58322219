package store

import (
	"slices"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/lib/maillog/flat"
)

func TestDomainForms(t *testing.T) {
	both := "xn--bcher-kva.example bücher.example"
	for in, want := range map[string]string{
		"example.com": "example.com", "Example.COM.": "example.com", "_dmarc.example.com": "_dmarc.example.com",
		"bücher.example": both, "BÜCHER.example": both, "xn--bcher-kva.example": both, "XN--Bcher-KVA.EXAMPLE": both,
		"bu\u0308cher.example": both, // decomposed
		"localhost":            "localhost",

		// What merely maps to another's name is refused.
		"ｅｘａｍｐｌｅ.com": "", "example。com": "", "ban\u212a.example": "", "exam\u00adple.com": "", "examp\u200ble.com": "",
		"①.example": "", "ﬁ.example": "",
		"": "", ".": "", "a..b": "", ".a": "", "a b": "", "a@b": "", "*": "", "*.example.com": "", "a%": "", "a\x00b": "",
		"a' OR 1=1 --": "", "\xff.example": "", "xn--\xff": "", "[192.0.2.1]": "", "a\nb": "", "a/b": "",
		"xn--99999999999999.example": "", strings.Repeat("a.", 127) + "aaa": "",
	} {
		got, err := domainForms(in)
		if strings.Join(got, " ") != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
}

// tenantRows are one row of each kind that matters to tenant a.example.
func tenantRows() (rows []*flat.Row, visible map[string]bool) {
	visible = map[string]bool{}
	add := func(name string, seen bool, dir, sender, rcpt, origTo string) {
		rows = append(rows, row(noon+int64(len(rows)), 1, func(r *flat.Row) {
			r.Dir, r.Sender, r.Rcpt, r.OrigTo = dir, sender, rcpt, origTo
			r.SenderDomain, r.RcptDomain = flat.Domain(sender), flat.Domain(rcpt)
			r.MsgID, r.QIDIn, r.Subject = name, "4gSHARED", "hello"
		}))
		visible[name] = seen
	}
	in, out, local := flat.DirIn, flat.DirOut, flat.DirLocal
	add("to me", true, in, "x@stranger.example", "anna@a.example", "")
	add("to me, upper case", true, in, "x@stranger.example", "anna@A.EXAMPLE", "")
	add("to me, via another's alias", true, in, "x@stranger.example", "anna@a.example", "secret@b.example")
	add("to me, via my alias", true, in, "x@stranger.example", "anna@a.example", "info@a.example")
	add("from me, out", true, out, "anna@a.example", "y@stranger.example", "")
	add("from me to b", true, local, "anna@a.example", "bob@b.example", "team@b.example")
	add("forged sender to b", false, in, "anna@a.example", "bob@b.example", "")
	add("forged sender, no direction", false, "", "anna@a.example", "bob@b.example", "")
	add("forged sender, odd direction", false, "OUT", "anna@a.example", "bob@b.example", "")
	add("to b", false, in, "x@stranger.example", "bob@b.example", "")
	add("to b, addressed to me", false, in, "x@stranger.example", "bob@b.example", "anna@a.example")
	add("to my subdomain", false, in, "x@stranger.example", "root@mail.a.example", "")
	add("from my subdomain", false, out, "root@mail.a.example", "y@stranger.example", "")
	add("to a longer name", false, in, "x@stranger.example", "x@notmya.example", "")
	add("to a.example.org", false, in, "x@stranger.example", "x@a.example.org", "")
	add("to nobody", false, in, "x@stranger.example", "", "")
	add("bounce from nobody", false, out, "", "bob@b.example", "")
	add("my name in a local part", false, in, "x@stranger.example", `"a.example"@b.example`, "")
	return rows, visible
}

// Whatever the tenant asks, in whatever state the indexes are, nothing but
// the tenant's rows comes out, and all of them come out where nothing else is
// asked.
func TestTenant(t *testing.T) { onBoth(t, testTenant) }

func testTenant(t *testing.T, k kind) {
	rows, visible := tenantRows()
	db := k.open(t)
	commit(t, db, &Batch{Rows: rows})
	for _, state := range []string{"scan", "index"} {
		if state == "index" {
			finish(t, db)
		}
		for name, q := range map[string]Query{
			"all": {}, "queue id": {QueueID: "4gSHARED"}, "text": {Text: "hello"}, "sent": {Outcomes: []string{flat.Sent}},
			"span": {Since: noon, Until: noon + 1000}, "oldest": {OldestFirst: true},
			"sender": {Sender: "*@*"}, "anna": {Sender: "anna@a.example"}, "rcpt": {Rcpt: "*@*"}, "bob": {Rcpt: "bob@b.example"},
			"@b": {Rcpt: "@b.example"}, "@stranger": {Sender: "@stranger.example"}, "secret": {Rcpt: "secret@b.example"},
			"alias": {Rcpt: "anna@a.example"}, "secret word": {Text: "secret"},
			"injection": {QueueID: "x' OR '1'='1", MessageID: "\" OR 1=1 --"},
		} {
			q.Domain = "A.example"
			seen := map[string]bool{}
			for _, r := range find(t, db, &q) {
				seen[r.MsgID] = true
				if !visible[r.MsgID] {
					t.Errorf("%s, %s: shows %q", state, name, r.MsgID)
				}
				if strings.Contains(r.OrigTo, "secret") {
					t.Errorf("%s, %s: shows another's alias", state, name)
				}
				if name == "secret" || name == "secret word" {
					t.Errorf("%s, %s: what is hidden was matched: %q", state, name, r.MsgID)
				}
			}
			if slices.Contains([]string{"all", "queue id", "text", "sent", "span", "oldest"}, name) {
				for want, ok := range visible {
					if ok && !seen[want] {
						t.Errorf("%s, %s: does not show %q", state, name, want)
					}
				}
			}
		}
		// One row at a time.
		for _, r := range rows {
			got, err := db.Get(t.Context(), r.ID, "a.example")
			if err != nil || (got != nil) != visible[r.MsgID] || got != nil && strings.Contains(got.OrigTo, "secret") {
				t.Errorf("%s: Get %q: %+v, %v", state, r.MsgID, got, err)
			}
		}
	}
	if got := find(t, db, &Query{Domain: "A.example", Rcpt: "bob@b.example"}); len(got) != 1 || got[0].OrigTo != "team@b.example" {
		t.Errorf("what the tenant sent lost its address before aliases: %+v", got)
	}
	if got, err := db.Get(t.Context(), rows[9].ID, ""); err != nil || got == nil {
		t.Errorf("the postmaster does not see everything: %v", err)
	}
	for _, domain := range []string{"*", "' OR 1=1 --", "a.example' --", "%", "a.example\x00", "ａ.example", "a.example,b.example", "a.example b.example"} {
		if _, err := db.Get(t.Context(), rows[9].ID, domain); err == nil {
			t.Errorf("Get for domain %q is no error", domain)
		}
		if _, err := db.Siblings(t.Context(), rows[9], domain, 10); err == nil {
			t.Errorf("Siblings for domain %q is no error", domain)
		}
		if _, err := db.Children(t.Context(), rows[9].ID, domain, 10); err == nil {
			t.Errorf("Children for domain %q is no error", domain)
		}
		if _, err := db.Follow(t.Context(), &Query{Domain: domain}); err == nil {
			t.Errorf("Follow for domain %q is no error", domain)
		}
	}
}

// A mail to two tenants: each sees its own row of it.
func TestSiblingsAndChildren(t *testing.T) { onBoth(t, testSiblingsAndChildren) }

func testSiblingsAndChildren(t *testing.T, k kind) {
	db := k.open(t)
	mail := func(n uint64, rcpt string) *flat.Row {
		return row(noon, n, func(r *flat.Row) {
			r.QIDIn, r.HostIn, r.InstanceIn = "4gX", "mx1", "mx"
			r.Sender, r.SenderDomain = "x@stranger.example", "stranger.example"
			r.Rcpt, r.RcptDomain = rcpt, flat.Domain(rcpt)
		})
	}
	a, a2, b := mail(1, "anna@a.example"), mail(2, "arno@a.example"), mail(3, "bob@b.example")
	elsewhere := mail(4, "anna@a.example")
	elsewhere.HostIn = "mx2"
	later := mail(5, "anna@a.example")
	later.ID, later.TS = row(noon+5, 5, nil).ID, noon+5
	bounce := row(noon+86400000*3, 6, func(r *flat.Row) {
		r.ParentID, r.Dir, r.Rcpt, r.RcptDomain = b.ID, flat.DirOut, "x@stranger.example", "stranger.example"
	})
	commit(t, db, &Batch{Rows: []*flat.Row{a, a2, b, elsewhere, later, bounce}})
	finish(t, db)
	for _, tt := range []struct {
		domain   string
		limit    int
		siblings int
		children int
	}{{"", 100, 3, 1}, {"", 2, 2, 1}, {"a.example", 100, 2, 0}, {"b.example", 100, 1, 0}, {"stranger.example", 100, 0, 1}, {"c.example", 100, 0, 0}} {
		rows, err := db.Siblings(t.Context(), a, tt.domain, tt.limit)
		if err != nil || len(rows) != tt.siblings {
			t.Errorf("%q: %d siblings, want %d; %v", tt.domain, len(rows), tt.siblings, err)
		}
		rows, err = db.Children(t.Context(), b.ID, tt.domain, tt.limit)
		if err != nil || len(rows) != tt.children {
			t.Errorf("%q: %d children, want %d; %v", tt.domain, len(rows), tt.children, err)
		}
	}
	alone := row(noon, 9, nil)
	if rows, err := db.Siblings(t.Context(), alone, "", 5); err != nil || len(rows) != 1 || rows[0] != alone {
		t.Errorf("a row without a queue id: %d siblings, %v", len(rows), err)
	}
}

func FuzzTenant(f *testing.F) {
	rows, visible := tenantRows()
	db := openTemp(f)
	commit(f, db, &Batch{Rows: rows})
	finish(f, db)
	f.Add("anna@a.example", "", "10.0.0.0/8", "4gSHARED", "hello", "a.example")
	f.Add("*", "<>", "::1", "' OR 1=1", "%", "A.EXAMPLE.")
	f.Add("@b.example", "bob@", "*", "", "secret", "a.example")
	f.Fuzz(func(t *testing.T, sender, rcpt, client, queueID, text, domain string) {
		forms, err := domainForms(domain)
		mine := err == nil && slices.Contains(forms, "a.example")
		res, err := db.Search(t.Context(), &Query{
			Sender: sender, Rcpt: rcpt, Client: client, QueueID: queueID, Text: text, Domain: domain,
		})
		if err != nil {
			return
		}
		for r, err := range res.All() {
			if err != nil {
				t.Fatal(err)
			}
			if domain != "" && mine && (!visible[r.MsgID] || strings.Contains(r.OrigTo, "secret")) {
				t.Errorf("shows %q", r.MsgID)
			}
			if domain != "" && !slices.Contains(forms, r.RcptDomain) && !slices.Contains(forms, r.SenderDomain) {
				t.Errorf("%q is shown %q", domain, r.MsgID)
			}
		}
	})
}
