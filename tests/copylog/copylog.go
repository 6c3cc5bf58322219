// Package copylog makes large logs of a small one, by writing it again and
// again. Each copy has queue ids, process ids, hosts, addresses and times of
// its own, so that its mails join as they did, and with no mail of another.
package copylog

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"time"
)

// piece is a part of a line: text that stays, or something to be replaced.
type piece struct {
	kind pieceKind
	text []byte
	num  int // a process id, or an index into the template's ids
}

type pieceKind uint8

const (
	literal pieceKind = iota
	host
	pid     // 9619
	pid5    // 09601, as Amavis writes it
	id      // a queue id, or an Amavis mail_id
	address // what stands before the @
	client  // 127.x.y.z
)

// Template is a log made ready to be copied.
type Template struct {
	lines [][]piece
	times []time.Time
	ids   [][]byte
	span  time.Duration
}

var (
	header = regexp.MustCompile(`^(\S+) (\S+) ([^ \[]+)\[(\d+)\]: (.*)$`)
	// what does not belong to any mail: daemons that say how they are, and
	// Amavis when it starts
	noMail = regexp.MustCompile(`^[^ ]*/(master|postfix-script|postlog|postsuper|flush|scache|showq|trivial-rewrite|anvil|pickup)$`)
	qidAt  = regexp.MustCompile(`^([0-9A-F]{6,11}|[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{12,20}): `)
	mailID = regexp.MustCompile(`mail_id: ([A-Za-z0-9_-]{8,})`)
	change = regexp.MustCompile(`[A-Za-z0-9._+-]+@|127\.\d+\.\d+\.\d+|\(\d{5,}-|[A-Za-z0-9_-]+`)
)

// Read reads a log with RFC 3339 times.
func Read(name string) (*Template, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	t := &Template{}
	ids := map[string]int{}
	note := func(m [][]byte) {
		if m != nil {
			if _, ok := ids[string(m[1])]; !ok {
				ids[string(m[1])] = len(t.ids)
				t.ids = append(t.ids, m[1])
			}
		}
	}
	var kept [][][]byte
	for l := range bytes.Lines(b) {
		m := header.FindSubmatch(bytes.TrimSuffix(l, []byte("\n")))
		if m == nil || noMail.Match(m[3]) && !qidAt.Match(m[5]) || bytes.HasPrefix(m[5], []byte("warning: /")) ||
			!bytes.Contains(m[3], []byte("/")) && m[5][0] != '(' {
			continue
		}
		note(qidAt.FindSubmatch(m[5]))
		note(mailID.FindSubmatch(m[5]))
		kept = append(kept, m)
	}
	for _, m := range kept {
		at, err := time.Parse(time.RFC3339Nano, string(m[1]))
		if err != nil {
			return nil, err
		}
		n, err := strconv.Atoi(string(m[4]))
		if err != nil {
			return nil, err
		}
		line := []piece{
			{kind: host, text: m[2]},
			{text: append([]byte(" "), append(m[3], '[')...)},
			{kind: pid, num: n},
			{text: []byte("]: ")},
		}
		t.lines = append(t.lines, split(line, m[5], ids))
		t.times = append(t.times, at)
	}
	if len(t.lines) == 0 {
		return nil, fmt.Errorf("%s: no lines with RFC 3339 times and a process id", name)
	}
	t.span = t.times[len(t.times)-1].Sub(t.times[0]) + time.Second
	return t, nil
}

// split cuts a message into pieces.
func split(line []piece, msg []byte, ids map[string]int) []piece {
	done := 0
	add := func(p piece, from, to int) {
		if from > done {
			line = append(line, piece{text: msg[done:from]})
		}
		line = append(line, p)
		done = to
	}
	for _, at := range change.FindAllIndex(msg, -1) {
		from, to := at[0], at[1]
		word := msg[from:to]
		n, isID := ids[string(bytes.TrimSuffix(word, []byte("@")))]
		switch {
		case isID && word[len(word)-1] == '@':
			add(piece{kind: id, num: n}, from, to-1)
		case isID:
			add(piece{kind: id, num: n}, from, to)
		case word[0] == '(':
			n, _ := strconv.Atoi(string(word[1 : len(word)-1]))
			add(piece{kind: pid5, num: n}, from+1, to-1)
		case word[len(word)-1] == '@':
			add(piece{kind: address, text: word[:len(word)-1]}, from, to-1)
		case bytes.HasPrefix(word, []byte("127.")) && !bytes.HasPrefix(word, []byte("127.0.0.")):
			add(piece{kind: client, text: word}, from, to)
		default: // mail_ids stand in the names of quarantine files too
			for i := range word {
				if n, ok := ids[string(word[i:])]; ok && i > 0 && word[i-1] == '-' {
					add(piece{kind: id, num: n}, from+i, to)
					break
				}
			}
		}
	}
	if done < len(msg) {
		line = append(line, piece{text: msg[done:]})
	}
	return line
}

// shuffled gives an alphabet's letters other places, by copy.
func shuffled(alphabet string, copyNo int) (table [256]byte) {
	for i := range table {
		table[i] = byte(i)
	}
	r := rand.New(rand.NewPCG(uint64(copyNo), uint64(len(alphabet))))
	for i, j := range r.Perm(len(alphabet)) {
		table[alphabet[i]] = alphabet[j]
	}
	return table
}

// Alphabets of queue ids: short ones are hexadecimal; long ones have no
// vowels, and a z between the time and the inode (Postfix, mail_queue.h). A
// mail_id is base64url.
const (
	shortID = "0123456789ABCDEF"
	longID  = "0123456789BCDFGHJKLMNPQRSTVWXYbcdfghjklmnpqrstvwxy"
	amavis  = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// rename returns the ids of a copy.
func (t *Template) rename(copyNo int) [][]byte {
	short, long, mail := shuffled(shortID, copyNo), shuffled(longID, copyNo), shuffled(amavis, copyNo)
	out := make([][]byte, len(t.ids))
	for i, was := range t.ids {
		table := &short
		if len(was) > 12 {
			table = &long
		} else if len(was) == 12 {
			table = &mail
		}
		b := bytes.Clone(was)
		for j := range b {
			b[j] = table[b[j]]
		}
		out[i] = b
	}
	return out
}

// Lines is how many lines a copy has.
func (t *Template) Lines() int { return len(t.lines) }

// Span is the time from the beginning of a copy to the next one's.
func (t *Template) Span() time.Duration { return t.span }

// Write writes lines, with BSD times or RFC 3339 ones. Copies follow each
// other without a pause.
func (t *Template) Write(w io.Writer, lines int, bsd bool) error {
	out := bufio.NewWriterSize(w, 1<<20)
	var buf []byte
	for n, copyNo := 0, 0; n < lines; copyNo++ {
		ids := t.rename(copyNo)
		shift := time.Duration(copyNo) * t.span
		for i := 0; i < len(t.lines) && n < lines; i, n = i+1, n+1 {
			buf = t.append(buf[:0], i, t.times[i].Add(shift), bsd, copyNo, ids)
			if _, err := out.Write(buf); err != nil {
				return err
			}
		}
	}
	return out.Flush()
}

// append appends a line of a copy.
func (t *Template) append(buf []byte, i int, at time.Time, bsd bool, copyNo int, ids [][]byte) []byte {
	if bsd {
		buf = at.AppendFormat(buf, time.Stamp)
	} else {
		buf = at.AppendFormat(buf, "2006-01-02T15:04:05.000000-07:00")
	}
	buf = append(buf, ' ')
	for _, p := range t.lines[i] {
		buf = p.append(buf, copyNo, ids)
	}
	return append(buf, '\n')
}

// maxPID is the kernel's default for 64 bit, proc(5).
const maxPID = 4194304

func (p *piece) append(b []byte, copyNo int, ids [][]byte) []byte {
	switch p.kind {
	case host:
		return fmt.Appendf(b, "%s%02d", p.text, copyNo%16)
	case pid:
		return strconv.AppendInt(b, int64(newPID(p.num, copyNo)), 10)
	case pid5:
		return fmt.Appendf(b, "%05d", newPID(p.num, copyNo))
	case id:
		return append(b, ids[p.num]...)
	case address:
		return fmt.Appendf(b, "%s-%d", p.text, copyNo)
	case client:
		var o [4]int
		_, _ = fmt.Sscanf(string(p.text), "%d.%d.%d.%d", &o[0], &o[1], &o[2], &o[3])
		n := o[1]<<16 + o[2]<<8 + o[3] + copyNo*7919
		return fmt.Appendf(b, "%d.%d.%d.%d", 1+copyNo%200, n>>16&255, n>>8&255, n&255)
	}
	return append(b, p.text...)
}

func newPID(n, copyNo int) int { return 300 + (n+copyNo*4801)%(maxPID-300) }
