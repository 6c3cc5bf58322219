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
