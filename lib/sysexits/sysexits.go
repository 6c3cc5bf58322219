// Package sysexits puts an exit status on an error, so that a library can say
// what kind of failure it met without knowing about flags or os.Exit.
//
// The statuses are those of sysexits(3), which Postfix's pipe(8) and spawn(8)
// understand, and any other integer: a program has verdicts of its own from 1
// to 49, Nagios plug-ins speak 0 to 3, and heartbeat's scripts know 3 as
// "stopped".
package sysexits

import (
	"errors"
	"fmt"
)

// Exit statuses, with the names of sysexits(3) in the comments.
const (
	OK          = 0
	Usage       = 64 // EX_USAGE: wrong command line
	Data        = 65 // EX_DATAERR: the input is not what it should be
	Unavailable = 69 // EX_UNAVAILABLE: a service or peer that is needed is not there
	Bug         = 70 // EX_SOFTWARE: a fault of the program; also what nobody classified
	CannotMake  = 73 // EX_CANTCREAT: an output cannot be created
	IO          = 74 // EX_IOERR: reading or writing failed, a full disk for one
	TryAgain    = 75 // EX_TEMPFAIL: the same call may work later
	NoPerm      = 77 // EX_NOPERM: not permitted
	Config      = 78 // EX_CONFIG: a configuration file is wrong
)

// Error is an error with an exit status.
type Error struct {
	status    int
	permanent bool
	err       error // nil: nothing is to be said
}

func (e *Error) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

// Unwrap returns the error that was classified.
func (e *Error) Unwrap() error { return e.err }

// Wrap gives err an exit status; its text stays as it is. Wrap of nil is nil.
// The outermost status wins, so a caller that knows better can wrap again.
func Wrap(status int, err error) error {
	if err == nil {
		return nil
	}
	return &Error{status: status, err: err}
}

// Errorf is Wrap of fmt.Errorf; %w works.
func Errorf(status int, format string, args ...any) error {
	return &Error{status: status, err: fmt.Errorf(format, args...)}
}

// Permanent is Wrap for a verdict that may cost a mail. A program that Postfix
// runs for a delivery (command.Delivery) turns every other failure into
// TryAgain, because Postfix bounces the mail on most statuses.
func Permanent(status int, err error) error {
	if err == nil {
		return nil
	}
	return &Error{status: status, permanent: true, err: err}
}

// Silent is an exit status and no message: for verdicts that the status alone
// tells, as grep's 1 does.
func Silent(status int) error { return &Error{status: status} }

// Status returns the exit status for err: 0 for nil, Bug for an error that
// nobody classified.
func Status(err error) int {
	if err == nil {
		return OK
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.status
	}
	return Bug
}

// IsPermanent reports whether the status of err was given by Permanent.
func IsPermanent(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.permanent
}

// IsSilent reports whether err is a status without a message. An error that
// adds words to a silent one is not silent.
func IsSilent(err error) bool {
	for {
		e, ok := err.(*Error)
		if !ok {
			return false
		}
		if e.err == nil {
			return true
		}
		err = e.err
	}
}
