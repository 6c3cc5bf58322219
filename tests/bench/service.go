package main

import (
	"fmt"
	"strconv"
	"strings"
)

// figure is a line of the table that a Go benchmark gives.
type figure struct {
	bench, result string // the benchmark, and the result in question
	what          string
	value         []part // of the second column
	beside        []part // of the third
}

// part is a metric as text.
type part struct{ unit, format string }

// figures are those of the service.
var figures = []figure{
	{
		bench: "MariaDBReplay", result: "MariaDBReplay", what: "into MariaDB, end to end, with indexes",
		value:  []part{{"lines/s", "%s lines a second"}, {"MB-peak", ", %s MB"}},
		beside: []part{{"bare-lines/s", "a bare `LOAD DATA` of the same rows: %s"}},
	},
	{
		bench: "Omprog", result: "Omprog/each-line", what: "omprog, the next line after the answer, fsync every 50 ms",
		value: []part{{"lines/s", "%s lines a second"}},
	},
	{
		bench: "Omprog", result: "Omprog/each-line-least-child", what: "the same, the least child that answers, without a database",
		value: []part{{"lines/s", "%s lines a second"}},
	},
	{
		bench: "Omprog", result: "Omprog/64-lines", what: "omprog, 64 lines at a time, fsync every 50 ms",
		value: []part{{"lines/s", "%s lines a second"}},
	},
	{
		bench: "Omprog", result: "Omprog/64-lines-fsync", what: "omprog, 64 lines at a time, fsync before each answer",
		value: []part{{"lines/s", "%s lines a second"}},
	},
	{
		bench: "Omprog", result: "Omprog/each-line-fsync", what: "omprog, the next line after the answer, fsync before each",
		value: []part{{"lines/s", "%s lines a second"}},
	},
	{
		bench: "Restart", result: "Restart/sqlite", what: "service with 200,000 waiting mails, SQLite: from start to first new row",
		value: []part{{"s-to-first-row", "%s s"}, {"MB-peak-while-they-come", ", %s MB at most"}},
	},
	{
		bench: "Restart", result: "Restart/mariadb", what: "the same, MariaDB",
		value: []part{{"s-to-first-row", "%s s"}, {"MB-peak-while-they-come", ", %s MB at most"}},
	},
}

// service takes the figures of the service's benchmarks in this folder.
func (s *settings) service() error {
	results := map[string][]string{}
	for i := range figures {
		f := &figures[i]
		if results[f.bench] == nil {
			say("the service's benchmark %s", f.bench)
			all, err := goBench("./tests/bench", "^Benchmark"+f.bench+"$", "-benchtime", "1x", "-count", strconv.Itoa(min(s.runs, 3)))
			if err != nil {
				return err
			}
			results[f.bench] = all
		}
		value, err := describe(results[f.bench], f.result, f.value)
		if err != nil {
			return err
		}
		beside, err := describe(results[f.bench], f.result, f.beside)
		if err != nil {
			return err
		}
		s.add(f.what, value, beside, "go test -run - -bench "+f.bench+" ./tests/bench")
	}
	return nil
}

// describe writes the medians of a benchmark's metrics.
func describe(results []string, name string, parts []part) (string, error) {
	var b strings.Builder
	of := resultsOf(results, name)
	for _, p := range parts {
		next := 0
		v, err := median(len(of), func() (float64, error) {
			next++
			return strconv.ParseFloat(metric(of[next-1], p.unit), 64)
		})
		if err != nil {
			return "", fmt.Errorf("%s: %s: %w", name, p.unit, err)
		}
		text := strconv.FormatFloat(v, 'f', 1, 64)
		if v >= 100 {
			text = thousands(int(v))
		}
		fmt.Fprintf(&b, p.format, text)
	}
	return b.String(), nil
}
