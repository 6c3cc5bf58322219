// Package suggest finds the word that a mistyped one was meant to be.
package suggest

import "strings"

// maxDistance is how many mistakes a word may have and still be understood.
const maxDistance = 2

// Nearest returns the word of known that word was probably meant to be: one
// that it is the beginning of, or else the one with the fewest letters to
// change, add or take out. It returns "" when none is near.
func Nearest(word string, known []string) string {
	best, least := "", maxDistance+1
	for _, k := range known {
		d := distance(word, k)
		if len(word) > maxDistance && strings.HasPrefix(k, word) {
			d = 0
		}
		if d < least && d < len(k) {
			best, least = k, d
		}
	}
	return best
}

// DidYouMean is Nearest as the end of a message: "; did you mean --since?",
// prefix being "--", or "".
func DidYouMean(word, prefix string, known []string) string {
	if k := Nearest(word, known); k != "" {
		return "; did you mean " + prefix + k + "?"
	}
	return ""
}

// distance is Levenshtein's: how many bytes to change, add or take out.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
