package command_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/lib/command"
)

// Whatever the words of a command line: no panic, every refusal is one clean
// line on standard error with status 64, and what follows "--" arrives.
func FuzzArguments(f *testing.F) {
	for _, s := range []string{"a -n 3 --db=x", "-vyn3 -- -n", "--tag\x00a,b\x00-", "--db --", "-V", "--=x", "-=", "--verbose=true"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, "\x00")
		if !strings.Contains(line, "\x00") {
			args = strings.Fields(line)
		}
		if strings.Contains(line, "c") { // --config and ROL_CONFIG: files have tests of their own
			return
		}
		args = append(args, "--", "--last")
		var got seen
		var stdout, stderr bytes.Buffer
		status := command.Run(flat(&got, nil), args, nil, &stdout, &stderr)
		switch {
		case status == 64:
			if got.ran != "" || stdout.Len() > 0 || strings.Count(stderr.String(), "\n") != 1 ||
				strings.ContainsAny(stderr.String(), "\x00\x1b\r") {
				t.Errorf("%q: ran %q, stdout %q, stderr %q", args, got.ran, stdout.String(), stderr.String())
			}
		case status != 0 || stderr.Len() > 0:
			t.Errorf("%q: status %d, stderr %q", args, status, stderr.String())
		case got.ran == "" && stdout.Len() == 0:
			t.Errorf("%q: nothing ran and nothing was said", args)
		// An option may take the "--" for its value; then "--last" is unknown.
		case got.ran != "" && (len(got.operands) == 0 || got.operands[len(got.operands)-1] != "--last"):
			t.Errorf("%q: operands %q, db %q, tags %q", args, got.operands, got.text, got.tags)
		}
	})
}
