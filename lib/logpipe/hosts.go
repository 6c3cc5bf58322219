package logpipe

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rolmail/rolmail/lib/maillog"
	"github.com/rolmail/rolmail/lib/safeio"
)

// Bounds of what is counted by host and program.
const (
	maxHosts        = 1000
	maxHostPrograms = 200 // of one host
	otherHost       = "(other)"
)

// host is one that logs.
type host struct {
	name     string
	lines    int64
	programs map[string]*int64
	last     time.Time // when its last line was used, by the monotonic clock
}

// hosts counts lines by host and program, and knows when each was heard last.
type hosts struct {
	all    map[string]*host
	recent [512]struct { // by Event.Source, which names a process
		source uint64
		host   *host
		lines  *int64
	}
	now time.Time // of the lines being counted
}

func newHosts() *hosts { return &hosts{all: map[string]*host{}} }

// count counts a line that was parsed to ev.
func (h *hosts) count(ev *maillog.Event) {
	at := &h.recent[ev.Source%uint64(len(h.recent))]
	if ev.Source == 0 || at.source != ev.Source {
		host := h.host(ev.Host)
		lines := host.program(ev.Program)
		if ev.Source == 0 {
			host.add(lines, h.now)
			return
		}
		at.source, at.host, at.lines = ev.Source, host, lines
	}
	at.host.add(at.lines, h.now)
}

func (h *host) add(lines *int64, now time.Time) {
	h.lines++
	*lines++
	h.last = now
}

func (h *hosts) host(name []byte) *host {
	if x := h.all[string(name)]; x != nil {
		return x
	}
	label := clean(name)
	if len(h.all) >= maxHosts {
		label = otherHost
	}
	x := h.all[label]
	if x == nil {
		x = &host{name: label, programs: map[string]*int64{}}
		h.all[label] = x
	}
	return x
}

func (h *host) program(name []byte) *int64 {
	if n := h.programs[string(name)]; n != nil {
		return n
	}
	label := clean(name)
	if len(h.programs) >= maxHostPrograms {
		label = otherShape
	}
	n := h.programs[label]
	if n == nil {
		n = new(int64)
		h.programs[label] = n
	}
	return n
}

// maxLabel is the longest name kept, bytes. Names come from the network.
const maxLabel = 128

// clean makes a name fit for a label of a metric and for a terminal.
func clean(name []byte) string {
	s := strings.ToValidUTF8(string(name[:min(len(name), maxLabel)]), "?")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}

// HostReport says when a host was heard last.
type HostReport struct {
	Host     string           `json:"host"`
	Lines    int64            `json:"lines"`
	Silent   float64          `json:"silent_seconds"` // since its last line
	Programs map[string]int64 `json:"programs,omitempty"`
}

func (h *hosts) report(now time.Time) []HostReport {
	all := make([]HostReport, 0, len(h.all))
	for _, x := range h.all {
		r := HostReport{Host: x.name, Lines: x.lines, Silent: seconds(now.Sub(x.last)), Programs: map[string]int64{}}
		for name, n := range x.programs {
			r.Programs[name] = *n
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b HostReport) int { return strings.Compare(a.Host, b.Host) })
	return all
}

// hostsFile keeps the hosts over a restart, in the spool's directory: one that
// fell silent before it is missed after it.
const hostsFile = "hosts.json"

// maxHostsFile bounds what is read of it, bytes.
const maxHostsFile = 1 << 20

// loadHosts reads who logged before the restart. Whatever is wrong with the
// file, the hosts are known again as soon as they log.
func (h *hosts) load(dir string, wall, now time.Time) {
	path := filepath.Join(dir, hostsFile)
	if st, err := os.Stat(path); err != nil || st.Size() > maxHostsFile {
		return
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return
	}
	var last map[string]int64
	if json.Unmarshal(data, &last) != nil {
		return
	}
	for name, at := range last {
		if ago := wall.Sub(time.Unix(at, 0)); ago >= 0 && len(h.all) < maxHosts {
			h.host([]byte(name)).last = now.Add(-ago)
		}
	}
}

// save is the content of the file: who was heard when.
func (h *hosts) save(wall, now time.Time) ([]byte, error) {
	last := map[string]int64{}
	for _, x := range h.all {
		last[x.name] = wall.Add(-now.Sub(x.last)).Unix()
	}
	return json.Marshal(last)
}

func writeHosts(dir string, data []byte) error {
	return safeio.WriteFile(filepath.Join(dir, hostsFile), data, 0o640)
}

// seconds is a time in seconds, to the millisecond, never negative.
func seconds(d time.Duration) float64 {
	return max(0, float64(d.Milliseconds())/1000)
}
