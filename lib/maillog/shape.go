package maillog

// maxShape is the length of a shape, bytes.
const maxShape = 80

// Shape names what an unparsed line looks like: the program, then the text
// with digits folded and what stands in brackets or quotes left out. Lines of
// one new message of a new release have one shape.
func (p *Parser) Shape(line []byte, ev *Event) string {
	var buf [maxShape]byte
	out := buf[:0]
	text := line
	if ev.Class != Foreign {
		out = append(out, ev.Program[:min(len(ev.Program), 24)]...)
		out = append(out, ": "...)
		text = ev.Msg
		if id, rest, ok := queueID(text); ok {
			text = rest
			if len(id) == 0 {
				out = append(out, "NOQUEUE: "...)
			} else {
				out = append(out, "Q: "...)
			}
		}
	}
	if out = fold(out, text); len(out) == 0 {
		return "(empty line)"
	}
	return string(out)
}

// fold appends text to out up to maxShape.
func fold(out, text []byte) []byte {
	var closer byte
	for _, c := range text {
		if len(out) >= maxShape {
			break
		}
		if closer != 0 {
			if c == closer {
				out = append(out, c)
				closer = 0
			}
			continue
		}
		switch {
		case c == '<':
			closer = '>'
		case c == '[':
			closer = ']'
		case c == '"':
			closer = '"'
		case digit(c):
			if len(out) > 0 && out[len(out)-1] == '0' {
				continue
			}
			c = '0'
		case c < ' ' || c >= 0x7f:
			c = '?'
		}
		out = append(out, c)
	}
	return out
}
