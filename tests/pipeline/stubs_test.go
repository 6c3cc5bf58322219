package pipeline

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// The servers that Amavis and Postfix ask, each with as much of its protocol as
// they use: a clamd, a spamd and a Dovecot for logins. They know one virus, one
// spam and one user.
const (
	clamdAddr = "127.0.0.1:3310"
	spamdAddr = "127.0.0.1:783" // fixed in Amavis

	virus    = "EICAR-STANDARD-ANTIVIRUS-TEST-FILE"
	spam     = "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL"
	password = "correct horse"
)

// clamd answers CONTSCAN DIRECTORY.
func clamd(c net.Conn) {
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return
	}
	dir := strings.TrimSpace(strings.TrimPrefix(line, "CONTSCAN "))
	answer := dir + ": OK\n"
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte(virus)) {
				answer = path + ": Eicar-Test-Signature FOUND\n"
			}
		}
		return nil
	})
	_, _ = io.WriteString(c, answer)
}

// spamd answers SYMBOLS.
func spamd(c net.Conn) {
	r := bufio.NewReader(c)
	size := 0
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSpace(line)
		if line == "" {
			break
		}
		if name, value, ok := strings.Cut(line, ": "); ok && strings.EqualFold(name, "content-length") {
			size, _ = strconv.Atoi(value)
		}
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return
	}
	verdict, score := "False", "1.399"
	if bytes.Contains(body, []byte(spam)) {
		verdict, score = "True", "1000.000"
	}
	const tests = "LAB=1.399\r\n"
	_, _ = fmt.Fprintf(c, "SPAMD/1.1 0 EX_OK\r\nContent-length: %d\r\nSpam: %s ; %s / 5.0\r\n\r\n%s",
		len(tests), verdict, score, tests)
}

// dovecotAuth speaks the login protocol of Dovecot, mechanism PLAIN.
func dovecotAuth(c net.Conn) {
	_, _ = io.WriteString(c, "VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t0123456789abcdef\nDONE\n")
	for s := bufio.NewScanner(c); s.Scan(); {
		words := strings.Split(s.Text(), "\t")
		if words[0] != "AUTH" || len(words) < 3 {
			continue
		}
		user, secret := "", ""
		if resp, ok := strings.CutPrefix(words[len(words)-1], "resp="); ok {
			if b, err := base64.StdEncoding.DecodeString(resp); err == nil {
				parts := strings.Split(string(b)+"\x00\x00", "\x00")
				user, secret = parts[1], parts[2]
			}
		}
		answer := "FAIL\t" + words[1] + "\tuser=" + user
		if secret == password {
			answer = "OK\t" + words[1] + "\tuser=" + user
		}
		_, _ = io.WriteString(c, answer+"\n")
	}
}

func startStubs(t testing.TB, authSocket string) {
	t.Helper()
	serve(t, "tcp", clamdAddr, clamd)
	serve(t, "tcp", spamdAddr, spamd)
	serve(t, "unix", authSocket, dovecotAuth)
	if err := os.Chmod(authSocket, 0o666); err != nil {
		t.Fatal(err)
	}
}
