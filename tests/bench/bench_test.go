package main

import "testing"

func TestNumbers(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	const result = "BenchmarkX/y-2  10  12345 ns/op  3 allocs/op"
	if metric(result, "ns/op") != "12345" || metric(result, "allocs/op") != "3" || metric(result, "MB/s") != "" {
		t.Error("metric reads a benchmark's line wrong")
	}
}

func TestDescribe(t *testing.T) {
	results := []string{
		"BenchmarkX/each-2  1  5 ns/op  30 lines/s",
		"BenchmarkX/each-least-2  1  5 ns/op  1 lines/s",
		"BenchmarkX/each-2  1  5 ns/op  2000 lines/s",
		"BenchmarkX/each-2  1  5 ns/op  1000 lines/s  7.25 MB",
	}
	got, err := describe(results, "X/each", []part{{"lines/s", "%s lines"}})
	if err != nil || got != "1,000 lines" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := describe(results, "X/each-least", []part{{"lines/s", "%s"}}); err != nil || got != "1.0" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := describe(results, "X/none", []part{{"lines/s", "%s"}}); err == nil {
		t.Error("a benchmark that is not there was described")
	}
	if got, err := describe(results, "X/none", nil); got != "" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}
