package logpipe

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/maillog/store"
)

// stored is every row of a database, as text.
func stored(t *testing.T, db *store.DB) string {
	t.Helper()
	found, err := db.Search(t.Context(), &store.Query{OldestFirst: true})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for r, err := range found.All() {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%+v", *r))
	}
	return strings.Join(all, "\n")
}

// A part of a log that was read before, cut out of its middle, changes
// nothing: the tails of mails that it begins with are known.
func TestPartOfAKnownLogChangesNothing(t *testing.T) {
	log := lab(t)
	db, err := store.Open(filepath.Join(t.TempDir(), "maillog.db"), store.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	replayAll(t, options(), db, log)
	before := stored(t, db)
	lines := bytes.SplitAfter(log, []byte("\n"))
	for _, cut := range [][2]int{{2500, len(lines)}, {1200, 3000}, {4000, 4100}} {
		part := slices.Concat(lines[cut[0]:cut[1]]...)
		if sum := replayAll(t, options(), db, part); sum.Lines == 0 {
			t.Fatalf("lines %v were taken for known by their beginning", cut)
		}
		if after := stored(t, db); after != before {
			t.Fatalf("lines %v of the same log: %s", cut, difference(after, before))
		}
	}
}

func TestHeadless(t *testing.T) {
	for evidence, want := range map[string]bool{
		"": false, "orig_queue_id": false, "missing: removed": false, "orig_queue_id; missing: removed,client": true,
		"missing: first leg": true, "missing: connect": true, "missing: next leg": false, "missing: all but the scan": true,
	} {
		if got := headless(&flat.Row{Evidence: evidence}); got != want {
			t.Errorf("%q: %v, want %v", evidence, got, want)
		}
	}
	if headless(&flat.Row{Evidence: "missing: client", Complete: true}) {
		t.Error("a complete row lacks its head")
	}
}
