package command

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// Hangups gives a value after each SIGHUP, by which a daemon is asked to look
// at its files again, until ctx is done. Several that come together are one.
// Without a call of it a SIGHUP ends the program, as usual.
func Hangups(ctx context.Context) <-chan struct{} {
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP)
	out := make(chan struct{}, 1)
	go func() {
		defer signal.Stop(caught)
		for {
			select {
			case <-ctx.Done():
				return
			case <-caught:
				select {
				case out <- struct{}{}:
				default:
				}
			}
		}
	}()
	return out
}
