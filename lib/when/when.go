// Package when reads points in time as people write them.
package when

import (
	"fmt"
	"strings"
	"time"

	"github.com/rolmail/rolmail/lib/config"
)

// Forms names what Parse understands, for help and messages.
const Forms = "2h, 90m, 3d, today, yesterday 14:00, monday, 14:00, 2026-11-23 or 2026-11-23T14:00:05Z"

// Parse reads a point in time; now is the clock, and its location the zone of
// times that name none. It understands
//
//	now
//	2h, 90m, 3d, 1w, 1h30m      so long before now; "2h ago" is the same
//	14:00, 14:00:05, 14:00:05.5 today at that time
//	today, yesterday, tomorrow  the day's first moment, or with a time behind
//	monday, mon                 the last one, today included; or with a time
//	2026-11-23                  the day's first moment, or with a time behind
//	Nov 23 14:00:05             as in a log: of the last year that had it by now
//	2026-11-23T14:00:05+01:00   RFC 3339, also with a space and without a zone
//
// A time that the clock shows twice, as summer time ends, is the first of
// the two; one that it skips is as much later as the clock was put forward.
func Parse(s string, now time.Time) (time.Time, error) {
	text := strings.ToLower(strings.TrimSpace(s))
	if t, ok := zoned(strings.TrimSpace(s)); ok {
		return t, nil
	}
	if text == "now" {
		return now, nil
	}
	ago := strings.TrimSpace(strings.TrimSuffix(text, " ago"))
	if d, err := config.ParseDuration(strings.ReplaceAll(ago, " ", "")); err == nil && ago != "0" {
		return now.Add(-d), nil
	}
	words := strings.Fields(strings.Replace(text, "t", " ", isoT(text)))
	if t, ok := local(words, now); ok {
		return t, nil
	}
	return time.Time{}, fmt.Errorf("%.60q is not a time; want one such as %s", s, Forms)
}

// isoT is 1 if the t in a text stands between a date and a time.
func isoT(s string) int {
	if len(s) > 11 && s[10] == 't' && s[4] == '-' {
		return 1
	}
	return 0
}

// zoned reads times that name their zone.
func zoned(s string) (time.Time, bool) {
	for _, layout := range []string{
		time.RFC3339, "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05 Z07:00", "2006-01-02T15:04Z07:00",
		"2006-01-02 15:04Z07:00", "2006-01-02 15:04:05 -0700", "2006-01-02 15:04:05 UTC", "2006-01-02 15:04 UTC",
	} {
		if t, err := time.Parse(layout, s); err == nil && sane(t) {
			return t, true
		}
	}
	return time.Time{}, false
}

func sane(t time.Time) bool { return t.Year() >= 1970 && t.Year() <= 9999 }

// local reads a day, a time of day, or both.
func local(words []string, now time.Time) (time.Time, bool) {
	if len(words) == 0 {
		return time.Time{}, false
	}
	clock := time.Time{} // of year 0: midnight
	if c, ok := clockTime(words[len(words)-1]); ok {
		clock = c
		words = words[:len(words)-1]
	}
	y, m, d := now.Date()
	switch {
	case len(words) == 0:
	case len(words) == 1:
		var ok bool
		if y, m, d, ok = day(words[0], now); !ok {
			return time.Time{}, false
		}
	case len(words) == 2:
		t, err := time.Parse("Jan 2", words[0]+" "+words[1])
		if err != nil {
			return time.Time{}, false
		}
		m, d = t.Month(), t.Day()
		for wall(y, m, d, clock, now.Location()).After(now) || !exists(y, m, d) {
			if y--; y < now.Year()-8 {
				return time.Time{}, false
			}
		}
	default:
		return time.Time{}, false
	}
	t := wall(y, m, d, clock, now.Location())
	return t, sane(t)
}

func exists(y int, m time.Month, d int) bool {
	return time.Date(y, m, d, 12, 0, 0, 0, time.UTC).Day() == d
}

func clockTime(s string) (time.Time, bool) {
	for _, layout := range []string{"15:04", "15:04:05"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// day reads the name of a day.
func day(s string, now time.Time) (int, time.Month, int, bool) {
	y, m, d := now.Date()
	back := func(days int) (int, time.Month, int, bool) {
		y, m, d := time.Date(y, m, d-days, 12, 0, 0, 0, time.UTC).Date()
		return y, m, d, true
	}
	switch s {
	case "today":
		return back(0)
	case "yesterday":
		return back(1)
	case "tomorrow":
		return back(-1)
	}
	for w := time.Sunday; w <= time.Saturday; w++ {
		name := strings.ToLower(w.String())
		if s == name || s == name[:3] {
			return back(int(now.Weekday()-w+7) % 7)
		}
	}
	t, err := time.Parse("2006-01-02", s)
	if err != nil {
		return 0, 0, 0, false
	}
	y, m, d = t.Date()
	return y, m, d, true
}

// wall is the moment at which a clock in loc shows a day and a time.
func wall(y int, m time.Month, d int, clock time.Time, loc *time.Location) time.Time {
	asUTC := time.Date(y, m, d, clock.Hour(), clock.Minute(), clock.Second(), clock.Nanosecond(), time.UTC)
	_, before := asUTC.Add(-26 * time.Hour).In(loc).Zone()
	_, after := asUTC.Add(26 * time.Hour).In(loc).Zone()
	first := asUTC.Add(-time.Duration(max(before, after)) * time.Second).In(loc)
	second := asUTC.Add(-time.Duration(min(before, after)) * time.Second).In(loc)
	shows := func(t time.Time) bool {
		_, off := t.Zone()
		return t.UTC().Add(time.Duration(off) * time.Second).Equal(asUTC)
	}
	switch {
	case shows(first):
		return first
	case shows(second):
		return second
	}
	return asUTC.Add(-time.Duration(before) * time.Second).In(loc)
}
