// Package lab holds flat maillog rows against the truth of a lab log: what
// really became of every mail that was sent through a Postfix, Amavis, Postfix
// chain, written down by the program that sent it. Package tests/pipeline, which
// sends mail itself, has its rows judged here too.
package lab

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Truth is a mail and one of its recipients, a refused recipient, or a session
// that was broken off, as the sender and the final server saw it.
type Truth struct {
	ClientIP  string `json:"client_ip,omitempty"`
	Code      string `json:"code,omitempty"`      // SMTP code the client saw
	Direction string `json:"direction,omitempty"` // in, out or local, where it was looked at
	Fate      string `json:"fate"`                // the outcome
	HELO      string `json:"helo,omitempty"`
	Kind      string `json:"kind"` // what was tried
	MsgID     string `json:"msgid,omitempty"`
	OrigTo    string `json:"orig_to,omitempty"`
	Rcpt      string `json:"rcpt,omitempty"`
	SASLUser  string `json:"sasl_user,omitempty"`
	Sender    string `json:"sender,omitempty"`
	Stage     string `json:"stage,omitempty"` // for what was refused or broken off

	// Blind says that the log names neither sender nor recipient: the row is
	// found by client address.
	Blind bool `json:"blind,omitempty"`
}

// Notice is the kind of a truth that is a bounce or another notice of the
// cluster's own: it has no sender, and its recipient is the sender of the mail
// that it is about.
const Notice = "notice"

// blind are the kinds of the lab logs that are blind, which do not say so.
var blind = map[string]bool{
	"abort_rcpt": true, "abort_data": true, "abort_connect": true, "timeout": true, "errors": true, "toobig": true,
}

func (t Truth) blind() bool { return t.Blind || blind[t.Kind] }

// verdicts are what Amavis says of a quarantined mail, by kind.
var verdicts = map[string]string{"spam": "SPAM", "banned": "BANNED", "virus": "INFECTED"}

// Row is a row as rol-maillog search --format json prints it.
type Row map[string]any

// text is a column as text, "" if it is absent.
func (r Row) text(column string) string {
	switch v := r[column].(type) {
	case nil:
		return ""
	case string:
		return v
	default:
		return fmt.Sprint(v)
	}
}

// complete reports whether nothing is missing; absent means yes.
func (r Row) complete() bool {
	switch v := r["complete"].(type) {
	case bool:
		return v
	case float64:
		return v != 0
	}
	return true
}

// ReadJSONLines reads one JSON value a line.
func ReadJSONLines[T any](r io.Reader) ([]T, error) {
	var all []T
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		if len(sc.Bytes()) == 0 {
			continue
		}
		var v T
		if err := json.Unmarshal(sc.Bytes(), &v); err != nil {
			return nil, fmt.Errorf("line %d: %w", len(all)+1, err)
		}
		all = append(all, v)
	}
	return all, sc.Err()
}

// Score returns what is wrong, a line each; nothing when there is exactly one
// right row for each truth and no other row but those of notices, whose sender
// is empty.
func Score(truths []Truth, rows []Row) (wrong []string) {
	return score(truths, rows, func(r Row) bool { return r.text("sender") == "" })
}

// ScoreAll is Score for truths that hold the notices too: there may be no other
// row at all.
func ScoreAll(truths []Truth, rows []Row) (wrong []string) {
	return score(truths, rows, func(Row) bool { return false })
}

func score(truths []Truth, rows []Row, mayBe func(Row) bool) (wrong []string) {
	x := newIndex(rows)
	for _, t := range truths {
		candidates := x.candidates(t)
		var why []string
		if len(candidates) != 1 {
			why = append(why, fmt.Sprintf("%d rows", len(candidates)))
		}
		if len(candidates) > 0 {
			r := rows[candidates[0]]
			x.used[candidates[0]] = true
			why = append(why, compare(t, r)...)
			if p := x.byID[r.text("parent_id")]; t.Kind == Notice && p.text("sender") != t.Rcpt {
				why = append(why, fmt.Sprintf("parent_id %q, not the mail it is about", r.text("parent_id")))
			}
		}
		if why != nil {
			wrong = append(wrong, fmt.Sprintf("%s %s %s %s %s: %s",
				t.Kind, t.ClientIP, t.Sender, t.Rcpt, t.Fate, strings.Join(why, "; ")))
		}
	}
	for i, r := range rows {
		if !x.used[i] && !mayBe(r) {
			wrong = append(wrong, fmt.Sprintf("unexplained row: %s %s %s %s %s %s",
				r.text("kind"), r.text("outcome"), r.text("sender"), r.text("rcpt"), r.text("client_ip"), r.text("qid_in")))
		}
	}
	return wrong
}

// index finds rows that no truth has used yet.
type index struct {
	rows         []Row
	used         []bool
	byPair, byIP map[[2]string][]int // by sender and recipient; by client address
	byID         map[string]Row
}

func newIndex(rows []Row) *index {
	x := &index{
		rows: rows, used: make([]bool, len(rows)),
		byPair: map[[2]string][]int{}, byIP: map[[2]string][]int{}, byID: map[string]Row{},
	}
	for i, r := range rows {
		pair, ip := [2]string{r.text("sender"), r.text("rcpt")}, [2]string{r.text("client_ip")}
		x.byPair[pair] = append(x.byPair[pair], i)
		x.byIP[ip] = append(x.byIP[ip], i)
		x.byID[r.text("id")] = r
	}
	return x
}

// candidates are the rows that may be a truth's.
func (x *index) candidates(t Truth) (found []int) {
	all := x.byPair[[2]string{t.Sender, t.Rcpt}]
	if t.blind() {
		all = x.byIP[[2]string{t.ClientIP}]
	}
	for _, i := range all {
		r := x.rows[i]
		switch {
		case x.used[i]:
		case t.blind() && (r.text("rcpt") != "" || r.text("kind") != "abort" && r.text("kind") != "reject"):
		case t.Kind == Notice && r.text("msgid") != t.MsgID:
		default:
			found = append(found, i)
		}
	}
	return found
}

// compare holds a row against its truth, in what the log can say of it.
func compare(t Truth, r Row) (why []string) {
	differs := func(column, want string) {
		if got := r.text(column); got != want {
			why = append(why, fmt.Sprintf("%s %q, want %q", column, got, want))
		}
	}
	refused := t.Fate == "rejected" && !t.blind()
	if t.Kind == "toobig" {
		if !slices.Contains([]string{"rejected", "aborted"}, r.text("outcome")) {
			differs("outcome", "rejected")
		}
	} else {
		differs("outcome", t.Fate)
	}
	if t.ClientIP != "" {
		differs("client_ip", t.ClientIP)
	}
	if refused && t.HELO != "" && t.Kind != "ctrl" {
		differs("helo", t.HELO)
	}
	if (refused || t.Blind) && t.Code != "" && t.Kind != "header" {
		differs("smtp_code", t.Code)
	}
	for column, want := range map[string]string{"sasl_user": t.SASLUser, "direction": t.Direction, "orig_to": t.OrigTo} {
		if want != "" {
			differs(column, want)
		}
	}
	if t.Stage != "" && t.Kind != "errors" { // the lab logs call that a stage
		differs("stage", t.Stage)
	}
	if t.MsgID != "" && slices.Contains([]string{"sent", "bounced", "expired", "quarantined"}, t.Fate) {
		differs("msgid", t.MsgID)
	}
	if t.Fate == "quarantined" {
		differs("verdict", verdicts[t.Kind])
	}
	if t.Fate == "sent" && t.Kind == "clean" {
		for _, column := range []string{
			"qid_in", "qid_out", "host_in", "host_filter", "host_out", "scan_ms", "total_ms", "size", "score",
		} {
			if r.text(column) == "" {
				why = append(why, "no "+column)
			}
		}
	}
	if !r.complete() && !t.blind() {
		why = append(why, "not complete")
	}
	return why
}
