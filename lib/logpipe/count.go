package logpipe

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
)

// Bounds of what is counted apart; the rest is counted as otherShape.
const (
	maxShapes   = 1000
	maxPrograms = 1000
	maxSample   = 500 // bytes of the line kept with a shape
	otherShape  = "(other)"
)

// Shape is a kind of line that was not understood.
type Shape struct {
	Count  int64  `json:"count"`
	Shape  string `json:"shape"`
	Sample string `json:"sample"` // the first such line
}

// counters say what became of the lines: lines = used + noise + unparsed.
type counters struct {
	used, noise, unparsed, foreign int64
	skipped                        int64 // bytes

	noises map[string]int64
	shapes map[string]*Shape
}

func newCounters() *counters {
	return &counters{noises: map[string]int64{}, shapes: map[string]*Shape{}}
}

func (c *counters) lines() int64 { return c.used + c.noise + c.unparsed }

// addNoise counts a line of a program that says nothing of use.
func (c *counters) addNoise(program []byte) {
	c.noise++
	if n, ok := c.noises[string(program)]; ok {
		c.noises[string(program)] = n + 1
		return
	}
	name := strings.ToValidUTF8(string(program), "?")
	if len(c.noises) >= maxPrograms {
		name = otherShape
	}
	c.noises[name]++
}

// addUnparsed counts a line that was not understood; foreign ones are no
// syslog lines.
func (c *counters) addUnparsed(shape string, line []byte, foreign bool) {
	c.unparsed++
	if foreign {
		c.foreign++
	}
	s := c.shapes[shape]
	if s == nil {
		if len(c.shapes) >= maxShapes {
			shape = otherShape
			s = c.shapes[shape]
		}
		if s == nil {
			sample := bytes.ToValidUTF8(line[:min(len(line), maxSample)], []byte("?"))
			s = &Shape{Shape: shape, Sample: string(sample)}
			c.shapes[shape] = s
		}
	}
	s.Count++
}

// sorted are the shapes, most frequent first.
func (c *counters) sorted() []Shape {
	all := make([]Shape, 0, len(c.shapes))
	for _, s := range c.shapes {
		all = append(all, *s)
	}
	slices.SortFunc(all, func(a, b Shape) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Shape, b.Shape))
	})
	return all
}
