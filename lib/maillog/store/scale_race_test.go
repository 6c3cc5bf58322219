//go:build race

package store

// scale divides the amounts of tests: the race detector makes SQLite, which is
// Go here, thirty times slower.
const scale = 8
