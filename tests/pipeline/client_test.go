package pipeline

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// client is an SMTP session with the front. Its first error stays, and makes
// all that follows do nothing, so that a script of commands reads straight.
type client struct {
	conn net.Conn
	r    *bufio.Reader
	err  error
	last string // the last reply's code
}

// dial connects from an address of the loopback and reads the greeting.
func dial(ip string, port int, greeting string) *client {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: 30 * time.Second}
	conn, err := d.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return &client{err: err}
	}
	_ = conn.SetDeadline(time.Now().Add(90 * time.Second))
	c := &client{conn: conn, r: bufio.NewReader(conn)}
	c.expect(greeting)
	return c
}

// expect reads a reply whose code must begin with want.
func (c *client) expect(want string) {
	for c.err == nil {
		line, err := c.r.ReadString('\n')
		if err != nil {
			c.err = fmt.Errorf("waiting for %s: %w", want, err)
			return
		}
		if len(line) < 4 || line[3] == '-' {
			continue
		}
		c.last = line[:3]
		if !strings.HasPrefix(line, want) {
			c.err = fmt.Errorf("want %s, got %q", want, line)
		}
		return
	}
}

func (c *client) write(text string) {
	if c.err == nil {
		_, c.err = io.WriteString(c.conn, text)
	}
}

// cmd sends a command line and expects a reply.
func (c *client) cmd(want, format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	c.write(line + "\r\n")
	if c.expect(want); c.err != nil && !strings.Contains(c.err.Error(), "after ") {
		c.err = fmt.Errorf("after %.60q: %w", line, c.err)
	}
}

// message sends DATA and a message. What is in it is made of whole lines.
func (c *client) message(want, text string) {
	c.cmd("354", "DATA")
	c.write(strings.ReplaceAll(text, "\n", "\r\n"))
	c.cmd(want, ".")
}

// login sends AUTH PLAIN.
func (c *client) login(want, user, secret string) {
	c.cmd(want, "AUTH PLAIN %s", base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+secret)))
}

// quit ends the session in good order.
func (c *client) quit() {
	c.cmd("221", "QUIT")
	c.drop()
}

// gone waits until the server has closed the connection.
func (c *client) gone() {
	if c.err == nil {
		_, c.err = io.Copy(io.Discard, c.r)
	}
	c.drop()
}

// drop closes the connection without a word.
func (c *client) drop() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}
