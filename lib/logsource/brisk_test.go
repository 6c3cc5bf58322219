package logsource

import (
	"context"
	"io"
	"os"
	"testing"
	"time"
)

// TestBriskSleeps: what comes slowly, or not at all, costs no processor time;
// what comes fast is read without sleeping.
func TestBriskSleeps(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	wait, err := newWaiter(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer wait.close()
	b := newBrisk(int(r.Fd()), wait)
	read := func(want string) {
		t.Helper()
		var buf [16]byte
		n, err := b.read(ctx, buf[:])
		if err != nil || string(buf[:n]) != want {
			t.Fatalf("read %q, %v; want %q", buf[:n], err, want)
		}
	}
	write := func(text string) {
		if _, err := w.WriteString(text); err != nil {
			t.Error(err)
		}
	}
	b.fast = true
	write("there")
	read("there")
	if !b.fast {
		t.Error("a line that was there made it slow")
	}
	time.AfterFunc(20*time.Millisecond, func() { write("late") })
	read("late")
	if b.fast {
		t.Error("still spinning after 20 ms without a line")
	}
	time.AfterFunc(20*time.Millisecond, cancel)
	b.fast = true
	if n, err := b.read(ctx, make([]byte, 16)); n != 0 || err != context.Canceled {
		t.Errorf("read %d, %v; want the end of the context", n, err)
	}
}

// TestOmprogEndsUnderLoad ends the context while there is always a line more.
func TestOmprogEndsUnderLoad(t *testing.T) {
	m := newOm(t, nil, OmprogOptions{})
	go func() {
		for {
			if _, err := m.to.WriteString("line\n"); err != nil {
				return
			}
		}
	}()
	go io.Copy(io.Discard, m.answer)
	time.Sleep(20 * time.Millisecond)
	if err := m.stop(); err != nil {
		t.Error(err)
	}
}

// TestOmprogOfNoPipe reads a file, and a socket, neither of which is made not
// to wait: others may have the same description.
func TestOmprogOfNoPipe(t *testing.T) {
	for _, kind := range []string{"file", "socket"} {
		p := newPlace(t)
		p.check(NewOmprog(input(t, kind, "one\ntwo\nthree\nfour"), io.Discard, p.sink, OmprogOptions{}).Run(t.Context()))
		p.expect("one", "two", "three", "four")
	}
}
