// Package lab holds flat maillog rows against the truth of a lab log: what
// really became of every mail that was sent through a Postfix, Amavis, Postfix
// chain, written down by the program that sent it.
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
	ClientIP string `json:"client_ip"`
	Code     string `json:"code"` // SMTP code the client saw
	Fate     string `json:"fate"` // the outcome
	HELO     string `json:"helo"`
	Kind     string `json:"kind"` // what was tried
	MsgID    string `json:"msgid"`
	OrigTo   string `json:"orig_to"`
	Rcpt     string `json:"rcpt"`
	Sender   string `json:"sender"`
}

// blind are the kinds for which a log names neither sender nor recipient: they
// are found by client address.
var blind = map[string]bool{
	"abort_rcpt": true, "abort_data": true, "abort_connect": true, "timeout": true, "errors": true, "toobig": true,
}

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
	byPair, byIP := map[[2]string][]int{}, map[string][]int{}
	for i, r := range rows {
		pair := [2]string{r.text("sender"), r.text("rcpt")}
		byPair[pair] = append(byPair[pair], i)
		byIP[r.text("client_ip")] = append(byIP[r.text("client_ip")], i)
	}
	used := make([]bool, len(rows))
	for _, t := range truths {
		found := byPair[[2]string{t.Sender, t.Rcpt}]
		if blind[t.Kind] {
			found = byIP[t.ClientIP]
		}
		var candidates []int
		for _, i := range found {
			r := rows[i]
			if !used[i] && (!blind[t.Kind] ||
				r.text("rcpt") == "" && (r.text("kind") == "abort" || r.text("kind") == "reject")) {
				candidates = append(candidates, i)
			}
		}
		var why []string
		if len(candidates) != 1 {
			why = append(why, fmt.Sprintf("%d rows", len(candidates)))
		}
		if len(candidates) > 0 {
			used[candidates[0]] = true
			why = append(why, compare(t, rows[candidates[0]])...)
		}
		if why != nil {
			wrong = append(wrong, fmt.Sprintf("%s %s %s %s %s: %s",
				t.Kind, t.ClientIP, t.Sender, t.Rcpt, t.Fate, strings.Join(why, "; ")))
		}
	}
	for i, r := range rows {
		if !used[i] && r.text("sender") != "" {
			wrong = append(wrong, fmt.Sprintf("unexplained row: %s %s %s %s %s %s",
				r.text("kind"), r.text("outcome"), r.text("sender"), r.text("rcpt"), r.text("client_ip"), r.text("qid_in")))
		}
	}
	return wrong
}

// compare holds a row against its truth, in what the log can say of it.
func compare(t Truth, r Row) (why []string) {
	differs := func(column, want string) {
		if got := r.text(column); got != want {
			why = append(why, fmt.Sprintf("%s %q, want %q", column, got, want))
		}
	}
	refused := t.Fate == "rejected" && !blind[t.Kind]
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
	if refused && t.Code != "" && t.Kind != "header" {
		differs("smtp_code", t.Code)
	}
	if t.MsgID != "" && slices.Contains([]string{"sent", "bounced", "expired", "quarantined"}, t.Fate) {
		differs("msgid", t.MsgID)
	}
	if t.OrigTo != "" {
		differs("orig_to", t.OrigTo)
	}
	if v := r.text("verdict"); t.Fate == "quarantined" && v != "SPAM" && v != "BANNED" {
		differs("verdict", "SPAM")
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
	if !r.complete() && !blind[t.Kind] {
		why = append(why, "not complete")
	}
	return why
}
