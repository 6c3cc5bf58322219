package when

import (
	"testing"
	"time"
	_ "time/tzdata"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

func TestParse(t *testing.T) {
	rome := zone(t, "Europe/Rome")
	// A Wednesday.
	now := time.Date(2026, 11, 25, 9, 30, 15, 0, rome)
	for in, want := range map[string]string{
		"now":                       "2026-11-25T09:30:15+01:00",
		"2h":                        "2026-11-25T07:30:15+01:00",
		"90m":                       "2026-11-25T08:00:15+01:00",
		"90m ago":                   "2026-11-25T08:00:15+01:00",
		"1h30m":                     "2026-11-25T08:00:15+01:00",
		"1h 30m":                    "2026-11-25T08:00:15+01:00",
		"15s":                       "2026-11-25T09:30:00+01:00",
		"3d":                        "2026-11-22T09:30:15+01:00",
		"1w":                        "2026-11-18T09:30:15+01:00",
		"today":                     "2026-11-25T00:00:00+01:00",
		" Today ":                   "2026-11-25T00:00:00+01:00",
		"yesterday":                 "2026-11-24T00:00:00+01:00",
		"tomorrow":                  "2026-11-26T00:00:00+01:00",
		"yesterday 14:00":           "2026-11-24T14:00:00+01:00",
		"YESTERDAY 14:00:07":        "2026-11-24T14:00:07+01:00",
		"14:00":                     "2026-11-25T14:00:00+01:00",
		"8:05":                      "2026-11-25T08:05:00+01:00",
		"14:00:05.25":               "2026-11-25T14:00:05.25+01:00",
		"wednesday":                 "2026-11-25T00:00:00+01:00",
		"thu":                       "2026-11-19T00:00:00+01:00",
		"Tuesday 23:59":             "2026-11-24T23:59:00+01:00",
		"2026-11-23":                "2026-11-23T00:00:00+01:00",
		"2026-11-23 14:00":          "2026-11-23T14:00:00+01:00",
		"2026-11-23T14:00":          "2026-11-23T14:00:00+01:00",
		"2026-11-23T14:00:05":       "2026-11-23T14:00:05+01:00",
		"2026-07-01 14:00":          "2026-07-01T14:00:00+02:00",
		"2026-11-23T14:00:05Z":      "2026-11-23T14:00:05Z",
		"2026-11-23T14:00:05.957Z":  "2026-11-23T14:00:05.957Z",
		"2026-11-23t14:00:05z":      "",
		"2026-11-23T14:00:05+05:30": "2026-11-23T14:00:05+05:30",
		"2026-11-23 14:00:05Z":      "2026-11-23T14:00:05Z",
		"2026-11-23 14:00 UTC":      "2026-11-23T14:00:00Z",
		"Nov 23 14:00:05":           "2026-11-23T14:00:05+01:00",
		"nov  3 14:00:05":           "2026-11-03T14:00:05+01:00",
		"Dec 24":                    "2025-12-24T00:00:00+01:00",
		"Feb 29 10:00":              "2024-02-29T10:00:00+01:00",
		"Nov 25 09:31":              "2025-11-25T09:31:00+01:00",

		// Summer time ends on 25 October at 3:00, and began on 29 March at 2:00.
		"2026-10-25 02:30":    "2026-10-25T02:30:00+02:00",
		"2026-10-25 01:30":    "2026-10-25T01:30:00+02:00",
		"2026-10-25 03:00":    "2026-10-25T03:00:00+01:00",
		"2026-10-25":          "2026-10-25T00:00:00+02:00",
		"2026-10-26":          "2026-10-26T00:00:00+01:00",
		"2026-03-29 02:30":    "2026-03-29T03:30:00+02:00",
		"2026-03-29 01:59:59": "2026-03-29T01:59:59+01:00",
		"2026-03-29 03:00":    "2026-03-29T03:00:00+02:00",

		"": "", " ": "", "soon": "", "24:01": "", "14.00": "", "2026-13-01": "", "2026-02-30": "", "2h30": "", "-2h": "", "0": "",
		"12": "", "yesterday yesterday": "", "today 25:00": "", "Foo 23": "", "1969-01-01": "", "Feb 30 10:00": "",
		"2026-11-23 14:00 tomorrow": "", "99999999999w": "", "\x00": "",
	} {
		got, err := Parse(in, now)
		if (err != nil) != (want == "") || err == nil && got.Format(time.RFC3339Nano) != want {
			t.Errorf("%q: %v, %v; want %q", in, got.Format(time.RFC3339Nano), err, want)
		}
	}
}

// Where midnight does not exist, a day begins at 1 o'clock.
func TestNoMidnight(t *testing.T) {
	now := time.Date(2026, 9, 10, 12, 0, 0, 0, zone(t, "America/Santiago"))
	got, err := Parse("2026-09-06", now)
	if err != nil || got.Format(time.RFC3339) != "2026-09-06T01:00:00-03:00" {
		t.Errorf("%v, %v", got, err)
	}
}

// Every moment's wall clock is read as a moment that shows it, or the next
// that does.
func TestEveryHour(t *testing.T) {
	for _, name := range []string{"Europe/Rome", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Santiago", "UTC"} {
		loc := zone(t, name)
		now := time.Date(2026, 12, 31, 0, 0, 0, 0, loc)
		for at := time.Date(2026, 1, 1, 0, 0, 0, 0, loc); at.Before(now); at = at.Add(30 * time.Minute) {
			text := at.Format("2006-01-02 15:04")
			got, err := Parse(text, now)
			if err != nil || got.Format("2006-01-02 15:04") != text || got.After(at) || at.Sub(got) > time.Hour {
				t.Fatalf("%s: %s is %v, want %v; %v", name, text, got, at, err)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("yesterday 14:00")
	f.Add("2026-11-23T14:00:05+05:30")
	f.Add("Feb 29 10:00")
	now := time.Date(2026, 11, 25, 9, 30, 15, 0, zone(f, "Europe/Rome"))
	f.Fuzz(func(t *testing.T, s string) {
		if at, err := Parse(s, now); err == nil && (at.Year() < -3_000_000 || at.Year() > 10000) {
			t.Errorf("%q: %v", s, at)
		}
	})
}
