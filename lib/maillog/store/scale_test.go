//go:build !race

package store

const scale = 1
