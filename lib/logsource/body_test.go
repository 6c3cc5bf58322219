package logsource

import (
	"os"
	"testing"
)

// A log that is truncated after it was recognised and before it is held is
// still known by what was read of it, and so is its copy.
func TestTruncatedBeforeHeld(t *testing.T) {
	p := newPlace(t)
	text, _ := lines("a", 0, 100)
	p.append("mail.log", text)
	p.append("mail.log.1", text)
	open := func(name string) *body {
		b, err := openBody(p.path(name))
		p.check(err)
		t.Cleanup(b.close)
		return b
	}
	read := open("mail.log")
	p.check(read.begin(0))
	read.advance([]byte(text[:len(text)/2]))
	live := open("mail.log")
	if live.fits(&read.ident) != fitWhole {
		t.Fatal("the log is not recognised")
	}
	p.check(os.Truncate(p.path("mail.log"), 0))
	p.check(live.begin(read.off))
	if _, err := live.read(make([]byte, MaxChunk)); err != errTruncated {
		t.Errorf("read: %v, want that it was truncated", err)
	}
	if open("mail.log.1").fits(&live.ident) != fitWhole {
		t.Error("the copy is not recognised")
	}
}
