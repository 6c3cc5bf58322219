package maillog

import "testing"

// A subject cannot pass for what stands beside it: Amavis doubles quotes in it
// (macro dquote) and backslashes (sanitize_str).
func TestAmavisSubjectQuotes(t *testing.T) {
	const head = "2026-11-25T04:00:00.123456+00:00 mf1 amavis[1]: (00001-01) Passed CLEAN {RelayedInbound}, [192.0.2.7]:4711 " +
		"<a@example.com> -> <b@example.net>, mail_id: dq5WIUFoutna, Hits: 1.399, size: 145, Subject: "
	for _, tt := range []struct{ logged, want string }{
		{`"plain"`, `plain`},
		{`""`, ``},
		{`""""`, `""`},
		{`"""quoted"""`, `""quoted""`},
		{`"Re: ""quoted"", Hits: 9, size: 1, queued_as: 4PbC4x469Jz3tBr, 7 ms"`, `Re: ""quoted"", Hits: 9, size: 1, queued_as: 4PbC4x469Jz3tBr, 7 ms`},
		{`"back\\"`, `back\\`},
		{`"back\\"", Hits: 9"`, `back\\"", Hits: 9`},
		{`"cut`, `cut`},
	} {
		line := head + tt.logged
		if tt.logged != `"cut` {
			line += ", Tests: [X], 55 ms"
		}
		var ev Event
		if c := NewParser(Options{}).Parse([]byte(line), &ev); c != Used || string(ev.Subject) != tt.want {
			t.Errorf("%s: class %d, subject %q, want %q", tt.logged, c, ev.Subject, tt.want)
		}
		if ev.Scan.Score != 1.399 || ev.Scan.QueuedAs != nil || ev.Size != 145 || ev.Scan.MS == 7 {
			t.Errorf("%s: score %v, queued as %q, size %d, %d ms", tt.logged, ev.Scan.Score, ev.Scan.QueuedAs, ev.Size, ev.Scan.MS)
		}
	}
}
