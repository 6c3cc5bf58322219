package mysqlpool

import (
	"context"
	"crypto/x509"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"syscall"

	"github.com/go-sql-driver/mysql"

	"github.com/rolmail/rolmail/lib/sysexits"
	"github.com/rolmail/rolmail/lib/term"
)

// Word puts an error into words for people, in one line, with a status of
// sysexits: what was done (doing, such as "reading rows"; may be empty), what
// went wrong and what to do. The error stays within it, for Code, Lost and
// Again. An error that has a status already, and the end of a context, are
// returned as they are.
func Word(err error, doing string) error { return (&words{doing: doing}).word(err) }

// Word is Word with the file and the database in it.
func (p *Pool) Word(err error, doing string) error { return p.words("", doing).word(err) }

// Word is Word with the host, the file and the database in it.
func (c *Conn) Word(err error, doing string) error {
	w := c.host.pool.words(c.host.name, doing)
	if c.wire != nil && err != nil && Lost(err) && Code(err) == 0 {
		if cause := c.wire.failed.Load(); cause != nil { // the driver does not tell
			w.cause = *cause
		}
	}
	return w.word(err)
}

func (p *Pool) words(host, doing string) *words {
	w := &words{doing: doing, host: host, file: p.cfg.Path, db: p.cfg.DBName, user: p.cfg.User, grants: p.opt.Grants}
	if w.host == "" && len(p.hosts) == 1 {
		w.host = p.hosts[0].name
	}
	return w
}

// words is what an error is told with.
type words struct {
	doing, host, file, db, user, grants string
	cause                               error
}

// say is the whole line: where, doing, what and what to do.
func (w *words) say(status int, err error, what, advice string) error {
	var parts []string
	for _, s := range []string{term.Printable(w.file), w.host, w.doing} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	text := strings.Join(append(parts, what), ": ")
	if advice != "" {
		text += "; " + advice
	}
	return sysexits.Wrap(status, &worded{text, err})
}

// worded is an error with a text of its own.
type worded struct {
	text string
	err  error
}

func (e *worded) Error() string { return e.text }
func (e *worded) Unwrap() error { return e.err }

func (w *words) word(err error) error {
	if _, done := errors.AsType[*worded](err); done || err == nil || sysexits.Status(err) != sysexits.Bug {
		return err
	}
	if e, ok := errors.AsType[*unreachable](err); ok {
		return w.hosts(e)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	status, what, advice := w.parts(err)
	return w.say(status, err, what, advice)
}

// hosts words that no host could be used. The status is of the first host
// for which there is no hope, unless there is hope for another.
func (w *words) hosts(e *unreachable) error {
	all := *w
	all.host = ""
	status, advice := 0, ""
	hope := e.any(func(err error) bool { return Lost(err) || Again(err) })
	said := make([]string, len(e.tried))
	for i, r := range e.tried {
		s, what, adv := w.parts(r.err)
		said[i] = r.host + ": " + what
		if status == 0 && (!hope || Lost(r.err) || Again(r.err)) {
			status, advice = s, adv
		}
	}
	return all.say(status, e, strings.Join(said, "; "), advice)
}

// parts are the status, what went wrong and what to do.
func (w *words) parts(err error) (status int, what, advice string) {
	if e, ok := errors.AsType[*settingError](err); ok {
		status, what, advice = w.parts(e.err)
		return status, e.doing + ": " + what, advice
	}
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return w.server(e)
	}
	if errors.Is(err, mysql.ErrPktTooLarge) {
		return sysexits.Config, "a statement is longer than the server takes", packetAdvice
	}
	return w.connection(err)
}

const packetAdvice = "raise max_allowed_packet there, to 64M for one"

// account is the 'user'@'host' of a server's message.
var account = regexp.MustCompile(`'[^']{0,80}'@'[^']{0,255}'`)

// command is the start of "INSERT command denied to user ...".
var command = regexp.MustCompile(`^([A-Z][A-Z, ]{2,60}) command denied`)

// server words an error that the server has sent.
func (w *words) server(e *mysql.MySQLError) (status int, what, advice string) {
	what = fmt.Sprintf("the server says %q (error %d)", clean(e.Message), e.Number)
	who := clean(account.FindString(e.Message))
	if who == "" {
		who = fmt.Sprintf("'%s'", clean(w.user))
	}
	switch e.Number {
	case codeAccess, codeAccessNoPass, codeHostNotAllowed:
		return sysexits.NoPerm, w.refused(e, who), w.inFile("see to user and password")
	case codeDBAccess, codeTableAccess, codeColumnAccess, codeRoutineAccess, codePrivilege:
		return sysexits.NoPerm, what, w.grant(e, who)
	case codeNoDB:
		return sysexits.Config, fmt.Sprintf("there is no database %q", clean(w.db)),
			w.inFile(fmt.Sprintf("CREATE DATABASE %s CHARACTER SET utf8mb4, or correct dbname", w.quoted()))
	case codeNoTable:
		return sysexits.Unavailable, what, ""
	case codePacket:
		return sysexits.Config, what, packetAdvice
	case codeDiskFull, codeTableFull:
		return sysexits.IO, what, "make room on the server's disk"
	case codeTooManyConns, codeUserConns, codeUserLimit:
		return sysexits.TryAgain, what, "it has too many sessions: try again, or raise its limits"
	case codeHostBlocked:
		return sysexits.Unavailable, what, "run mariadb-admin flush-hosts there"
	case codeNotPrepared:
		return sysexits.Unavailable, what, "a node of Galera outside its cluster: see to it, or name another host"
	case codeNoPlugin:
		return sysexits.Config, what, ""
	case codeGetErrno:
		if noSpace(e) {
			return sysexits.IO, what, "make room on the server's disk"
		}
		return sysexits.IO, what, ""
	}
	switch {
	case readOnly(e):
		return sysexits.Unavailable, what, w.inFile("it is read-only: name the server that takes writes first in hosts")
	case Again(e):
		return sysexits.TryAgain, what, "try again"
	}
	return sysexits.Bug, what, ""
}

// refused words a login that the server did not take.
func (w *words) refused(e *mysql.MySQLError, who string) string {
	switch {
	case e.Number == codeHostNotAllowed:
		return fmt.Sprintf("the server says %q (error %d)", clean(e.Message), e.Number)
	case strings.HasSuffix(e.Message, "NO)") || e.Number == codeAccessNoPass:
		return fmt.Sprintf("the server refuses %s, without a password (error %d)", who, e.Number)
	}
	return fmt.Sprintf("the server refuses %s with this password (error %d)", who, e.Number)
}

// grant is the statement that gives the privilege that is missing.
func (w *words) grant(e *mysql.MySQLError, who string) string {
	on := w.quoted() + ".*"
	grants := w.grants
	if m := command.FindStringSubmatch(e.Message); grants == "" && m != nil {
		grants = m[1]
	}
	if e.Number == codePrivilege {
		return "see which with SHOW GRANTS FOR CURRENT_USER, and GRANT it ON *.*"
	}
	if grants == "" {
		grants = "SELECT"
	}
	return fmt.Sprintf("GRANT %s ON %s TO %s", grants, on, who)
}

// quoted is the database's name as SQL.
func (w *words) quoted() string {
	name := clean(w.db)
	if strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789_") == "" && name != "" {
		return name
	}
	return "`" + strings.ReplaceAll(name, "`", "``") + "`"
}

func (w *words) inFile(advice string) string {
	if w.file == "" {
		return advice
	}
	return advice + " in " + w.file
}

// connection words what went wrong before the server could say something.
func (w *words) connection(err error) (status int, what, advice string) {
	cause := err
	if w.cause != nil {
		cause = w.cause
	}
	if e, ok := errors.AsType[*silence](cause); ok {
		return sysexits.Unavailable, e.Error(), ""
	}
	if e, ok := errors.AsType[*net.DNSError](cause); ok {
		what := fmt.Sprintf("the name %q cannot be resolved", clean(e.Name))
		if e.IsNotFound {
			what = fmt.Sprintf("there is no host %q", clean(e.Name))
		}
		return sysexits.Unavailable, what, w.inFile("see to hosts")
	}
	if isTLS(cause) {
		return w.tls(cause)
	}
	switch {
	case errors.Is(cause, syscall.ECONNREFUSED):
		return sysexits.Unavailable, "connection refused", "is the server running?"
	case errors.Is(cause, syscall.ENOENT):
		return sysexits.Unavailable, "there is no such socket", w.inFile("is the server running? see to hosts")
	case errors.Is(cause, syscall.EACCES):
		return sysexits.NoPerm, "the socket may not be used: permission denied", ""
	case errors.Is(err, mysql.ErrUnknownPlugin), errors.Is(err, mysql.ErrOldPassword),
		errors.Is(err, mysql.ErrCleartextPassword), errors.Is(err, mysql.ErrNativePassword):
		return sysexits.Config, "the account logs in in a way that is not supported",
			fmt.Sprintf("give %s a password with mysql_native_password, ed25519 or caching_sha2_password", clean(w.user))
	case Lost(err):
		what := "the connection to the server is lost"
		if text := clean(cause.Error()); !errors.Is(cause, driver.ErrBadConn) && cause != mysql.ErrInvalidConn {
			what += ": " + text
		}
		return sysexits.TryAgain, what, ""
	}
	return sysexits.Bug, clean(err.Error()), ""
}

// tls words why TLS did not come about.
func (w *words) tls(err error) (status int, what, advice string) {
	what = "TLS: " + clean(strings.TrimPrefix(err.Error(), "tls: "))
	if errors.Is(err, mysql.ErrNoTLS) {
		return sysexits.Config, "TLS: the server has none", w.inFile("switch it on there, or take the tls_ parameters out")
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return sysexits.Config, what, w.inFile("name the host in hosts as its certificate does, or leave tls_verify_cert off")
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return sysexits.Config, what, w.inFile("see to tls_CAfile")
	}
	return sysexits.Config, what, ""
}
