package logsource

import "bytes"

// tidy makes whole lines fit to be handed on, in place: NULs before a line, of
// which a file with a hole has many, are dropped, and lines longer than
// MaxLine are cut. It returns what is left and how many were cut. Lines that
// need nothing of it cost a search for NUL and one for a newline each MaxLine
// bytes.
func tidy(b []byte) (out []byte, cut int64) {
	if bytes.IndexByte(b, 0) < 0 && !hasLong(b) {
		return b, 0
	}
	out = b[:0]
	for len(b) > 0 {
		n := bytes.IndexByte(b, '\n') + 1
		line := bytes.TrimLeft(b[:n], "\x00")
		b = b[n:]
		if len(line) > MaxLine+1 {
			cut++
			line = line[:MaxLine]
			out = append(append(out, line...), '\n')
			continue
		}
		out = append(out, line...)
	}
	return out, cut
}

// hasLong tells whether one of whole lines is longer than MaxLine.
func hasLong(b []byte) bool {
	for len(b) > MaxLine {
		i := bytes.LastIndexByte(b[:MaxLine+1], '\n')
		if i < 0 {
			return true
		}
		b = b[i+1:]
	}
	return false
}
