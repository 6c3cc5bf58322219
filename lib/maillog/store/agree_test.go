package store

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// alikeRows have texts that one collation or another takes for the same.
func alikeRows() (rows []*flat.Row) {
	for i, s := range []string{
		"anna@a.example", "ANNA@a.example", "anna@a.example ", " anna@a.example", "ännä@a.example", "anna@ä.example", "anna@A.EXAMPLE",
		"an_a@a.example", "an%a@a.example", "an!a@a.example", "an\\a@a.example", "anna'@a.example", "anna\x00@a.example",
		"stra\u00dfe@a.example", "strasse@a.example", "STRA\u1e9eE@a.example", "k@a.example", "\u212a@a.example", "\u0130@a.example", "i@a.example",
		"\u0131@a.example", "\u017f@a.example", "s@a.example", "e\u0301@a.example", "\u00e9@a.example", "\U0001f600@a.example",
		"\U0001f601@a.example", "\ufffd@a.example", "", "root", "@a.example", "a@b@a.example", "anna@", "\u200banna@a.example", "\tanna@a.example",
	} {
		for _, x := range []struct{ dir, other string }{{flat.DirIn, "x@stranger.example"}, {flat.DirOut, "bob@b.example"}, {flat.DirLocal, "anna@a.example"}} {
			rows = append(rows, row(noon+int64(len(rows))*7_000_000, uint64(i), func(r *flat.Row) {
				r.Dir, r.Sender, r.Rcpt, r.OrigTo = x.dir, x.other, s, x.other
				if i%2 == 0 {
					r.Sender, r.Rcpt, r.OrigTo = s, x.other, ""
				}
				r.SenderDomain, r.RcptDomain = flat.Domain(r.Sender), flat.Domain(r.Rcpt)
				r.Helo, r.Subject, r.QIDIn, r.MsgID, r.Verdict, r.ClientName = s, s, s, s, s, s
			}))
		}
	}
	return rows
}

// FuzzKindsAgree asks each kind of database the same: the answers are the
// same, to the byte.
func FuzzKindsAgree(f *testing.F) {
	rows := corpus(1500)
	rows = append(rows, alikeRows()...)
	for i, r := range rows {
		rows[i] = asKept(kinds[1], r)
	}
	var dbs []*DB
	for _, k := range kinds {
		db := k.open(f)
		commit(f, db, &Batch{Rows: rows})
		finish(f, db)
		dropIndex(f, db, "20261124", indexes[0]) // one day is scanned
		dbs = append(dbs, db)
	}
	seed := func(text, domain string) {
		for kind := range uint8(16) {
			f.Add(kind, text, domain, uint8(kind*7))
		}
	}
	for _, text := range []string{
		"anna@a.example", "Anna@", "an*", "k@a.example", "i@*", "strasse@a.example", "ss", "an_a@a.example", "an%*", "10.0.0.0/9", "2001:db8::/30",
		"4gx", "anna@a.example ", "\u00e9@a.example", "", "*", "\\*", "'", "sent", "Spam", "<>", "@a.example", "*@a.example",
	} {
		seed(text, "")
		seed(text, "a.example")
	}
	f.Fuzz(func(t *testing.T, kind uint8, text, domain string, limit uint8) {
		text = strings.ToValidUTF8(text, "\ufffd")
		q := Query{Domain: domain, OldestFirst: kind&16 != 0, Limit: int(limit)}
		switch kind & 15 {
		case 0:
			q.Sender = text
		case 1:
			q.Rcpt = text
		case 2:
			q.Client = text
		case 3:
			q.Helo = text
		case 4:
			q.QueueID = text
		case 5:
			q.MessageID = text
		case 6:
			q.Outcomes = []string{text, "sent"}
		case 7:
			q.Kinds = []string{text}
		case 8:
			q.Verdicts = []string{text}
		case 9:
			q.Text = text
		case 10:
			q.Sender, q.Outcomes = text, []string{"bounced", "sent"}
		case 11:
			q.Rcpt, q.Helo = text, "*"
		case 12:
			q.Rcpt, q.Since, q.Until = text, noon+3_600_000, noon+100_000_000
		case 13:
			q.Sender, q.Rcpt = text, text
		case 14:
			q.Client, q.Verdicts = text, []string{"spam", "clean"}
		case 15:
			rng := rand.New(rand.NewPCG(uint64(len(text)), uint64(limit)))
			q.ParentID = rows[rng.IntN(len(rows))].ParentID
		}
		var answers [][]*flat.Row
		for _, db := range dbs {
			res, err := db.Search(t.Context(), &q)
			if err != nil {
				return
			}
			var got []*flat.Row
			for r, err := range res.All() {
				if err != nil {
					t.Fatalf("%+v: %v", q, err)
				}
				got = append(got, r)
			}
			answers = append(answers, got)
		}
		if !slices.EqualFunc(answers[0], answers[1], same) {
			t.Errorf("%+v: %d rows and %d", q, len(answers[0]), len(answers[1]))
			for i := range min(len(answers[0]), len(answers[1])) {
				if d := differ(answers[0][i], answers[1][i]); d != "" {
					t.Fatal(i, d)
				}
			}
		}
	})
}
