package pipeline

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
)

// sink is the final server. The recipient's name says what it answers:
//
//	ok-…          250
//	later-…       450 the first time, then 250
//	expire-…      450
//	bounce-…      550
//	datareject-…  250, and 550 after the message
//
// and to everything else, as to the senders that get bounces, 250.
type sink struct {
	mu      sync.Mutex
	seen    map[string]int   // attempts by recipient
	taken   map[delivery]int // what was accepted
	notices []delivery       // without a sender, and not the generator's
}

// delivery is a recipient and a message id.
type delivery struct{ rcpt, msgid string }

// sinkAddr is where the sink listens: the relay host of the outgoing server.
const sinkAddr = "127.0.0.3:25"

func startSink(t testing.TB) *sink {
	t.Helper()
	s := &sink{seen: map[string]int{}, taken: map[delivery]int{}}
	serve(t, "tcp", sinkAddr, s.talk)
	return s
}

// serve runs talk for each connection, until the process ends.
func serve(t testing.TB, network, addr string, talk func(net.Conn)) {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				talk(c)
			}()
		}
	}()
}

// envelope is a mail that is being handed in.
type envelope struct {
	sender string
	rcpts  []string
}

func (s *sink) talk(c net.Conn) {
	r, w := bufio.NewReader(c), bufio.NewWriter(c)
	say := func(line string) {
		_, _ = w.WriteString(line + "\r\n")
		if r.Buffered() == 0 {
			_ = w.Flush()
		}
	}
	say("220 sink.lab.example ESMTP")
	var e envelope
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		verb := strings.ToUpper(strings.Fields(line + " x")[0])
		switch verb {
		case "EHLO":
			say("250-sink.lab.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 ENHANCEDSTATUSCODES")
		case "MAIL":
			e = envelope{sender: angle(line)}
			say("250 2.1.0 Ok")
		case "RCPT":
			say(s.recipient(&e, angle(line)))
		case "DATA":
			if len(e.rcpts) == 0 {
				say("554 5.5.1 no valid recipients")
				continue
			}
			say("354 go ahead")
			_ = w.Flush()
			msgid, err := readMessage(r)
			if err != nil {
				return
			}
			say(s.message(e, msgid))
		case "QUIT":
			say("221 2.0.0 Bye")
			return
		default:
			say("250 2.0.0 Ok")
		}
	}
}

// angle is what stands between < and >.
func angle(line string) string {
	_, after, _ := strings.Cut(line, "<")
	in, _, _ := strings.Cut(after, ">")
	return in
}

// readMessage reads up to the lone dot and returns the message id without its
// brackets.
func readMessage(r *bufio.Reader) (msgid string, err error) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		line = strings.TrimRight(line, "\r\n")
		if line == "." {
			return msgid, nil
		}
		if msgid == "" && strings.HasPrefix(strings.ToLower(line), "message-id:") {
			msgid = angle(line)
		}
	}
}

func (s *sink) recipient(e *envelope, rcpt string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[rcpt]++
	kind, _, _ := strings.Cut(rcpt, "-")
	switch {
	case kind == "later" && s.seen[rcpt] == 1:
		return "450 4.2.0 <" + rcpt + ">: Recipient address rejected: come again"
	case kind == "expire":
		return "450 4.2.2 <" + rcpt + ">: Recipient address rejected: mailbox full"
	case kind == "bounce":
		return "550 5.1.1 <" + rcpt + ">: Recipient address rejected: no such user here"
	}
	e.rcpts = append(e.rcpts, rcpt)
	return "250 2.1.5 Ok"
}

func (s *sink) message(e envelope, msgid string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if strings.HasPrefix(e.rcpts[0], "datareject-") {
		return "550 5.7.1 content refused"
	}
	for _, rcpt := range e.rcpts {
		d := delivery{rcpt, msgid}
		s.taken[d]++
		if e.sender == "" && !strings.HasSuffix(msgid, msgidDomain) {
			s.notices = append(s.notices, d)
		}
	}
	return fmt.Sprintf("250 2.0.0 Ok: queued as SINK%08X", len(s.taken))
}

// delivered is how often a message was taken for a recipient.
func (s *sink) delivered(rcpt, msgid string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken[delivery{rcpt, msgid}]
}

// takeNotices returns the notices since the last call.
func (s *sink) takeNotices() []delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.notices
	s.notices = nil
	return got
}
