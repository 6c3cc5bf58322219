package mysqlpool

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"
)

// Numbers of MySQL's and MariaDB's errors, with the names of their manuals.
const (
	codeDiskFull        = 1021 // ER_DISK_FULL
	codeGetErrno        = 1030 // ER_GET_ERRNO
	codeTooManyConns    = 1040 // ER_CON_COUNT_ERROR
	codeDBAccess        = 1044 // ER_DBACCESS_DENIED_ERROR
	codeAccess          = 1045 // ER_ACCESS_DENIED_ERROR
	codeNotPrepared     = 1047 // ER_UNKNOWN_COM_ERROR; Galera: the node is not in the cluster
	codeNoDB            = 1049 // ER_BAD_DB_ERROR
	codeTableFull       = 1114 // ER_RECORD_FILE_FULL
	codeHostBlocked     = 1129 // ER_HOST_IS_BLOCKED
	codeHostNotAllowed  = 1130 // ER_HOST_NOT_PRIVILEGED
	codeTableAccess     = 1142 // ER_TABLEACCESS_DENIED_ERROR
	codeColumnAccess    = 1143 // ER_COLUMNACCESS_DENIED_ERROR
	codeNoTable         = 1146 // ER_NO_SUCH_TABLE
	codePacket          = 1153 // ER_NET_PACKET_TOO_LARGE
	codeUnknownVariable = 1193 // ER_UNKNOWN_SYSTEM_VARIABLE
	codeUserConns       = 1203 // ER_TOO_MANY_USER_CONNECTIONS
	codeLockWait        = 1205 // ER_LOCK_WAIT_TIMEOUT
	codeDeadlock        = 1213 // ER_LOCK_DEADLOCK
	codeUserLimit       = 1226 // ER_USER_LIMIT_REACHED
	codePrivilege       = 1227 // ER_SPECIFIC_ACCESS_DENIED_ERROR
	codeOption          = 1290 // ER_OPTION_PREVENTS_STATEMENT; --read-only for one
	codeRoutineAccess   = 1370 // ER_PROCACCESS_DENIED_ERROR
	codeNoPlugin        = 1524 // ER_PLUGIN_IS_NOT_LOADED
	codeAccessNoPass    = 1698 // ER_ACCESS_DENIED_NO_PASSWORD_ERROR
	codeReadOnlyTx      = 1792 // ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION
	codeReadOnly        = 1836 // ER_READ_ONLY_MODE
)

// lost are the errors after which a session is gone.
var lost = []uint16{
	1053,       // ER_SERVER_SHUTDOWN
	1080,       // ER_FORCING_CLOSE
	1152, 1184, // ER_ABORTING_CONNECTION, ER_NEW_ABORTING_CONNECTION
	1158, 1159, 1160, 1161, // ER_NET_READ_ERROR, its INTERRUPTED, ER_NET_ERROR_ON_WRITE, its INTERRUPTED
	1927,             // MariaDB: ER_CONNECTION_KILLED
	2006, 2013, 2055, // CR_SERVER_GONE_ERROR, CR_SERVER_LOST, CR_SERVER_LOST_EXTENDED: relayed by proxies
	4031, // MySQL: ER_CLIENT_INTERACTION_TIMEOUT
}

// again are further errors that pass.
var again = []uint16{
	codeLockWait, codeDeadlock, codeReadOnly, codeReadOnlyTx, codeNotPrepared,
	codeTooManyConns, codeUserConns, codeUserLimit, codeHostBlocked,
	codeDiskFull, codeTableFull,
	1020, // ER_CHECKREAD: another transaction changed the row; MariaDB with innodb_snapshot_isolation
	1317, // ER_QUERY_INTERRUPTED: KILL QUERY, or a server that shuts down
	1412, // ER_TABLE_DEF_CHANGED
	1615, // ER_NEED_REPREPARE
	1637, // ER_TOO_MANY_CONCURRENT_TRXS
}

// Code returns the number that MySQL or MariaDB gave an error; 1153 for a
// packet that the driver would not send because the server takes none that
// long; 0 for an error that has none.
func Code(err error) uint16 {
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return e.Number
	}
	if errors.Is(err, mysql.ErrPktTooLarge) {
		return codePacket
	}
	return 0
}

// Lost reports whether err says that the session is gone, or that none can be
// made: what was not committed is not, and of a COMMIT nobody knows. The end
// of the caller's own context is none of it.
func Lost(err error) bool {
	if e, ok := errors.AsType[*unreachable](err); ok {
		return e.any(Lost)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || isTLS(err) {
		return false
	}
	for _, e := range []error{
		driver.ErrBadConn, mysql.ErrInvalidConn, mysql.ErrMalformPkt, mysql.ErrPktSync, mysql.ErrPktSyncMul,
		mysql.ErrBusyBuffer, sql.ErrConnDone, io.EOF, io.ErrUnexpectedEOF, io.ErrShortWrite,
		net.ErrClosed, os.ErrDeadlineExceeded, syscall.ECONNRESET, syscall.EPIPE, syscall.ETIMEDOUT,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	// Not any net.Error: every syscall.Errno is one, of a file too.
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*silence](err); ok {
		return true
	}
	return slices.Contains(lost, Code(err))
}

// Again reports whether the whole transaction is worth repeating: on a new
// session if Lost, and after a pause. It also holds for what needs a person
// first, but no change of the program's: a full disk, a server that is
// read-only. Callers that must end bound their attempts.
func Again(err error) bool {
	if e, ok := errors.AsType[*unreachable](err); ok {
		return e.any(Again)
	}
	code := Code(err)
	switch {
	case code == codeOption:
		return readOnly(err)
	case code == codeGetErrno:
		return noSpace(err)
	}
	return slices.Contains(again, code) || Lost(err)
}

// readOnly reports whether a statement was refused because the server, or the
// transaction, is read-only.
func readOnly(err error) bool {
	switch Code(err) {
	case codeReadOnly, codeReadOnlyTx:
		return true
	case codeOption:
		// The error names the option: --read-only, --super-read-only,
		// --innodb-read-only, --transaction-read-only.
		text := strings.ReplaceAll(err.Error(), "_", "-")
		return strings.Contains(text, "read-only")
	}
	return false
}

// noSpace reports whether ER_GET_ERRNO is about ENOSPC.
func noSpace(err error) bool {
	text := err.Error()
	return strings.Contains(text, "error 28 ") || strings.Contains(text, "errno: 28") || strings.Contains(text, "No space left")
}

// isTLS reports whether the two sides could not agree on TLS, which waiting
// does not mend.
func isTLS(err error) bool {
	if err == nil || Code(err) != 0 {
		return false
	}
	if errors.Is(err, mysql.ErrNoTLS) {
		return true
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return true
	}
	text := err.Error() // the rest of crypto/tls has no types
	return strings.Contains(text, "tls: ") && !strings.Contains(text, "tls: protocol is shutdown")
}

// silence is the error of a server that did not answer in time. It is a
// net.Error.
type silence struct {
	doing string
	after time.Duration
}

func (e *silence) Error() string   { return fmt.Sprintf("no answer to %s within %v", e.doing, e.after) }
func (e *silence) Timeout() bool   { return true }
func (e *silence) Temporary() bool { return true }

// settingError is a session variable that could not be set.
type settingError struct {
	doing string
	err   error
}

func (e *settingError) Error() string { return e.doing + ": " + e.err.Error() }
func (e *settingError) Unwrap() error { return e.err }

// refusal is why one host could not be used.
type refusal struct {
	host string
	err  error
}

// unreachable is the error when no host could be used.
type unreachable struct{ tried []refusal }

func (e *unreachable) Error() string {
	var b strings.Builder
	for i, r := range e.tried {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(r.host + ": " + clean(r.err.Error()))
	}
	return b.String()
}

func (e *unreachable) Unwrap() []error {
	errs := make([]error, len(e.tried))
	for i, r := range e.tried {
		errs[i] = r.err
	}
	return errs
}

func (e *unreachable) any(is func(error) bool) bool {
	return slices.ContainsFunc(e.tried, func(r refusal) bool { return is(r.err) })
}
