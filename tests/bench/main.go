// Bench measures what the README says about speed and memory, with the peers
// beside it, and prints the table. tests/bench/run runs it; its settings are
// environment variables:
//
//	BENCH_LINES   lines of the log; 1,000,000
//	BENCH_RUNS    runs of which the median counts; 5 (peers and stores: 3)
//	BENCH_KEEP    keep the generated logs in this directory
package main

import (
	"fmt"
	"os"
	"strconv"

	"github.com/rolmail/rolmail/tests/copylog"
)

func main() {
	var err error
	if len(os.Args) == 5 && os.Args[1] == "generate" {
		err = generate(os.Args[2], os.Args[3], os.Args[4])
	} else {
		err = bench()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// generate writes a log to standard output. It is a process of its own so
// that its memory is not counted with another's.
func generate(from, flavour, lines string) error {
	n, err := strconv.Atoi(lines)
	if err != nil {
		return err
	}
	t, err := copylog.Read(from)
	if err != nil {
		return err
	}
	return t.Write(os.Stdout, n, flavour == "bsd")
}
