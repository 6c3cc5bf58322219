package command

import (
	"context"
	"syscall"
	"testing"
	"time"
)

func TestHangups(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	h := Hangups(ctx)
	for range 2 {
		if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		select {
		case <-h:
		case <-time.After(10 * time.Second):
			t.Fatal("no value after a SIGHUP")
		}
	}
}
