package logsource

import (
	"log/slog"
	"time"

	"github.com/fsnotify/fsnotify"
)

// hint says when something happened in a directory, if the kernel tells. It
// never says what, and nothing relies on it: watches may run out, the queue
// may overflow, and a network's files are changed elsewhere.
type hint struct {
	w       *fsnotify.Watcher
	log     *slog.Logger
	watched map[string]bool
	c       chan bool
	quit    chan struct{}
}

// gather is how long hints are gathered to one look: a busy log would have the
// files looked at for every line.
const gather = 5 * time.Millisecond

func newHint(on bool, log *slog.Logger) *hint {
	h := &hint{log: log, watched: map[string]bool{}, quit: make(chan struct{})}
	if !on {
		return h
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		log.Warn("the kernel gives no notice of changed files; they are looked at by time alone", "error", err)
		return h
	}
	h.w, h.c = w, make(chan bool, 1)
	go h.run()
	return h
}

// run turns what happens into a wake-up: true if names may have changed.
func (h *hint) run() {
	for {
		names := false
		select {
		case e, ok := <-h.w.Events:
			if !ok {
				return
			}
			names = !e.Has(fsnotify.Write)
		case _, ok := <-h.w.Errors: // an overflow for one
			if !ok {
				return
			}
			names = true
		}
		select {
		case h.c <- names:
		case was := <-h.c:
			h.c <- was || names
		}
		select {
		case <-time.After(gather):
		case <-h.quit:
			return
		}
	}
}

// wake has a value when it is time to look; it never has without hints.
func (h *hint) wake() <-chan bool { return h.c }

// watch has a directory watched. One that is not there, or for which there is
// no watch left, is tried again.
func (h *hint) watch(dir string) {
	if h.w == nil {
		return
	}
	if err := h.w.Add(dir); err != nil {
		if !h.watched[dir] {
			h.watched[dir] = true
			h.log.Debug("no notice of changes in a directory; it is looked at by time", "dir", dir, "error", err)
		}
	}
}

func (h *hint) close() {
	close(h.quit)
	if h.w != nil {
		h.w.Close()
	}
}
