package maillog

import (
	"bytes"
	"encoding/binary"
	"time"
)

// Options says how to read time stamps that leave something out.
type Options struct {
	Location *time.Location // of stamps without a zone; nil is time.Local
	Year     int            // of the first line's stamp, where it has none; 0: from Now
	Now      time.Time      // the reading clock; zero: time.Now
}

// clock reads time stamps. Log lines come many a second, so that the last
// second's result is kept and only the fraction is read anew.
type clock struct {
	opt Options

	iso     [19]byte // last RFC 3339 stamp up to the second
	isoBase int64    // its seconds since 1970, as if it were UTC

	// fast: the last stamp of the shape 2026-11-23T17:39:21.957237+00:00, as words
	word    [3]uint64
	zone    uint64 // its "+00:00 "
	fastUS  int64  // its microseconds without the fraction
	fastSet bool

	bsd     [15]byte // last BSD stamp
	bsdBase int64    // its Unix seconds
	bsdSeen bool
}

// stamp reads the time stamp that b begins with. It returns Unix
// microseconds, whether they are whole seconds only, and the stamp's length;
// 0 where there is none.
func (c *clock) stamp(b []byte) (us int64, coarse bool, n int) {
	if us, ok := c.fast(b); ok {
		return us, false, stampLen
	}
	if len(b) >= 19 && b[4] == '-' {
		us, coarse, n = c.iso3339(b)
		if n == stampLen {
			c.remember(b, us)
		}
		return us, coarse, n
	}
	if len(b) >= 14 && b[3] == ' ' && b[0] >= 'A' {
		return c.traditional(b)
	}
	if len(b) >= 19 && b[4] == ' ' && b[8] == ' ' && isTwo(b, 0) && isTwo(b, 2) { // 2026 Nov 10 09:00:00
		year := two(b, 0)*100 + two(b, 2)
		us, coarse, n = c.monthDay(b[5:], year)
		return us, coarse, n + 5
	}
	return 0, false, 0
}

// stampLen is the length of 2026-11-23T17:39:21.957237+00:00.
const stampLen = 32

// fast reads a stamp that differs from the last one in its fraction alone.
func (c *clock) fast(b []byte) (us int64, ok bool) {
	if len(b) < stampLen+1 || b[19] != '.' || b[stampLen] != ' ' || !c.fastSet ||
		binary.LittleEndian.Uint64(b) != c.word[0] || binary.LittleEndian.Uint64(b[8:]) != c.word[1] ||
		binary.LittleEndian.Uint64(b[11:]) != c.word[2] || binary.LittleEndian.Uint64(b[25:])>>8 != c.zone {
		return 0, false
	}
	frac, ok := sixDigits(binary.LittleEndian.Uint64(b[20:]))
	return c.fastUS + frac, ok
}

// remember keeps a stamp for fast.
func (c *clock) remember(b []byte, us int64) {
	if len(b) < stampLen+1 || b[19] != '.' || b[stampLen] != ' ' {
		return
	}
	frac, ok := sixDigits(binary.LittleEndian.Uint64(b[20:]))
	if !ok || b[26] != '+' && b[26] != '-' {
		return
	}
	c.word = [3]uint64{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[11:])}
	c.zone, c.fastUS, c.fastSet = binary.LittleEndian.Uint64(b[25:])>>8, us-frac, true
}

// sixDigits reads the six digits in the lower bytes of a word, eight at a time
// (D. Lemire, "Quickly parsing eight digits").
func sixDigits(w uint64) (int64, bool) {
	w = w<<16 | 0x3030
	if w&0xF0F0F0F0F0F0F0F0 != 0x3030303030303030 || (w+0x0606060606060606)&0xF0F0F0F0F0F0F0F0 != 0x3030303030303030 {
		return 0, false
	}
	w = (w & 0x0F0F0F0F0F0F0F0F) * 2561 >> 8
	w = (w & 0x00FF00FF00FF00FF) * 6553601 >> 16
	return int64((w & 0x0000FFFF0000FFFF) * 42949672960001 >> 32), true
}

// iso3339 reads RFC 3339 section 5.6, also with a blank for the T, without a
// zone (it is then local), and with a zone without colon (journalctl).
func (c *clock) iso3339(b []byte) (us int64, coarse bool, n int) {
	if string(b[:19]) != string(c.iso[:]) {
		base, ok := isoSeconds(b)
		if !ok {
			return 0, false, 0
		}
		copy(c.iso[:], b)
		c.isoBase = base
	}
	frac, i, coarse := fraction(b, 19)
	us = c.isoBase*1e6 + frac
	if i >= len(b) {
		return us, coarse, i
	}
	switch b[i] {
	case 'Z', 'z':
		return us, coarse, i + 1
	case '+', '-':
		off, m, ok := zone(b[i:])
		if !ok {
			return 0, false, 0
		}
		return us - off*1e6, coarse, i + m
	}
	return c.local(us), coarse, i
}

// local takes microseconds that were read as UTC for local time.
func (c *clock) local(us int64) int64 {
	t := time.UnixMicro(us).UTC()
	l := time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), c.opt.Location)
	return l.UnixMicro()
}

// fraction reads ".123456" at i, to microseconds.
func fraction(b []byte, i int) (us int64, end int, coarse bool) {
	if i >= len(b) || b[i] != '.' && b[i] != ',' || i+1 >= len(b) || !digit(b[i+1]) {
		return 0, i, true
	}
	i++
	scale := int64(100000)
	for ; i < len(b) && digit(b[i]); i++ {
		us += int64(b[i]-'0') * scale
		scale /= 10
	}
	return us, i, false
}

// zone reads +hh:mm, +hhmm or +hh and returns seconds east of UTC.
func zone(b []byte) (sec int64, n int, ok bool) {
	if len(b) < 3 || !digit(b[1]) || !digit(b[2]) {
		return 0, 0, false
	}
	sec, n = int64(two(b, 1))*3600, 3
	i := 3
	if i < len(b) && b[i] == ':' {
		i++
	}
	if i+1 < len(b) && digit(b[i]) && digit(b[i+1]) {
		sec, n = sec+int64(two(b, i))*60, i+2
	}
	if b[0] == '-' {
		sec = -sec
	}
	return sec, n, true
}

func digit(c byte) bool          { return c-'0' <= 9 }
func two(b []byte, i int) int    { return int(b[i]-'0')*10 + int(b[i+1]-'0') }
func isTwo(b []byte, i int) bool { return digit(b[i]) && digit(b[i+1]) }

// isoSeconds reads 2026-11-23T17:39:21 as UTC.
func isoSeconds(b []byte) (int64, bool) {
	if b[7] != '-' || b[10] != 'T' && b[10] != ' ' && b[10] != 't' || b[13] != ':' || b[16] != ':' {
		return 0, false
	}
	for _, i := range [...]int{0, 2, 5, 8, 11, 14, 17} {
		if !isTwo(b, i) {
			return 0, false
		}
	}
	y, mo, d := two(b, 0)*100+two(b, 2), two(b, 5), two(b, 8)
	h, mi, s := two(b, 11), two(b, 14), two(b, 17)
	if mo < 1 || mo > 12 || d < 1 || d > daysIn(y, mo) || h > 23 || mi > 59 || s > 60 {
		return 0, false
	}
	return days(y, mo, d)*86400 + int64(h*3600+mi*60+s), true
}

func leap(y int) bool { return y%4 == 0 && (y%100 != 0 || y%400 == 0) }

func daysIn(y, mo int) int {
	if mo == 2 && leap(y) {
		return 29
	}
	return [...]int{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}[mo-1]
}

// days counts from 1970-01-01 in the proleptic Gregorian calendar.
func days(y, mo, d int) int64 {
	if mo <= 2 {
		y, mo = y-1, mo+12
	}
	era := y / 400
	yoe := y - era*400
	doy := (153*(mo-3)+2)/5 + d - 1
	return int64(era*146097+yoe*365+yoe/4-yoe/100+doy) - 719468
}

const monthNames = "JanFebMarAprMayJunJulAugSepOctNovDec"

// traditional reads the stamp of RFC 3164 section 4.1.2, "Nov 23 17:36:40",
// also with a fraction, and with the year that some relays put behind the day.
func (c *clock) traditional(b []byte) (us int64, coarse bool, n int) {
	if c.bsdSeen && len(b) >= 15 && string(b[:15]) == string(c.bsd[:]) {
		frac, end, coarse := fraction(b, 15)
		return c.bsdBase*1e6 + frac, coarse, end
	}
	us, coarse, n = c.monthDay(b, 0)
	if n == 15 || n > 15 && b[15] == '.' {
		copy(c.bsd[:], b)
	} else {
		c.bsd = [15]byte{}
	}
	return us, coarse, n
}

// monthDay reads "Nov 23 17:36:40", the day in one or two places.
func (c *clock) monthDay(b []byte, year int) (us int64, coarse bool, n int) {
	m := bytes.Index([]byte(monthNames), b[:3])
	if m < 0 || m%3 != 0 {
		return 0, false, 0
	}
	i := 4
	if b[i] == ' ' {
		i++
	}
	d := 0
	for ; i < 6 && digit(b[i]); i++ {
		d = d*10 + int(b[i]-'0')
	}
	if d < 1 || d > 31 || b[i] != ' ' {
		return 0, false, 0
	}
	i++
	if len(b) >= i+13 && isTwo(b, i) && isTwo(b, i+2) && b[i+4] == ' ' {
		year = two(b, i)*100 + two(b, i+2)
		i += 5
	}
	if len(b) < i+8 || !isTwo(b, i) || b[i+2] != ':' || !isTwo(b, i+3) || b[i+5] != ':' || !isTwo(b, i+6) {
		return 0, false, 0
	}
	h, mi, s := two(b, i), two(b, i+3), two(b, i+6)
	if h > 23 || mi > 59 || s > 60 {
		return 0, false, 0
	}
	sec, ok := c.place(year, m/3+1, d, h, mi, s)
	if !ok {
		return 0, false, 0
	}
	c.bsdBase, c.bsdSeen = sec, true
	frac, end, coarse := fraction(b, i+8)
	return sec*1e6 + frac, coarse, end
}

// place finds the Unix second of a local wall-clock time without a year.
//
// The first line gets the year of Options.Year or, without it, the latest that
// does not lie more than a day after the reading clock; each later line gets
// the year, and in the hour that comes twice the offset, which lies nearest to
// the line before it. So a log runs over New Year and through both DST hours;
// 29 February takes the nearest leap year.
func (c *clock) place(year, mo, d, h, mi, s int) (int64, bool) {
	if year == 0 && !c.bsdSeen {
		year = c.firstYear(mo, d, h, mi, s)
		if c.opt.Year != 0 {
			year = c.opt.Year
		}
	}
	if !c.bsdSeen || year != 0 {
		if d > daysIn(year, mo) {
			return 0, false
		}
		return c.wall(year, mo, d, h, mi, s)[0], true
	}
	prev := time.Unix(c.bsdBase, 0).In(c.opt.Location).Year()
	best, found := int64(0), false
	for y := prev - 1; y <= prev+1; y++ {
		if d > daysIn(y, mo) {
			continue
		}
		for _, cand := range c.wall(y, mo, d, h, mi, s) {
			if !found || abs(cand-c.bsdBase) < abs(best-c.bsdBase) {
				best, found = cand, true
			}
		}
	}
	if !found { // 29 February, far from the last line
		return c.nearestLeap(prev, h, mi, s), true
	}
	return best, true
}

func (c *clock) nearestLeap(y, h, mi, s int) int64 {
	for !leap(y) {
		y--
	}
	return c.wall(y, 2, 29, h, mi, s)[0]
}

func abs(x int64) int64 {
	if x < 0 {
		return -x
	}
	return x
}

// firstYear is the latest year in which the time is no more than a day ahead
// of the reading clock.
func (c *clock) firstYear(mo, d, h, mi, s int) int {
	y := c.opt.Now.In(c.opt.Location).Year() + 1
	limit := c.opt.Now.Unix() + 86400
	for i := 0; i < 12; i, y = i+1, y-1 {
		if d <= daysIn(y, mo) && c.wall(y, mo, d, h, mi, s)[0] <= limit {
			return y
		}
	}
	return y
}

// wall returns the one or two Unix seconds at which the local clock shows a
// time: two in the hour that daylight saving repeats. Both are the same
// otherwise.
func (c *clock) wall(y, mo, d, h, mi, s int) [2]int64 {
	t := time.Date(y, time.Month(mo), d, h, mi, s, 0, c.opt.Location)
	one := t.Unix()
	for _, shift := range [...]time.Duration{-time.Hour, time.Hour, -30 * time.Minute, 30 * time.Minute} {
		o := t.Add(shift)
		if o.Day() == d && o.Hour() == h && o.Minute() == mi {
			return [2]int64{min(one, o.Unix()), max(one, o.Unix())}
		}
	}
	return [2]int64{one, one}
}
