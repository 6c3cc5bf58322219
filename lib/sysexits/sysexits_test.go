package sysexits_test

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/rolmail/rolmail/lib/sysexits"
)

func TestStatus(t *testing.T) {
	plain := errors.New("plain")
	for _, tt := range []struct {
		name      string
		err       error
		status    int
		permanent bool
		silent    bool
	}{
		{"nil", nil, 0, false, false},
		{"plain", plain, 70, false, false},
		{"wrapped", sysexits.Wrap(sysexits.Config, plain), 78, false, false},
		{"wrapped nil", sysexits.Wrap(sysexits.Config, nil), 0, false, false},
		{"permanent nil", sysexits.Permanent(67, nil), 0, false, false},
		{"below fmt.Errorf", fmt.Errorf("reading: %w", sysexits.Wrap(74, plain)), 74, false, false},
		{"joined", errors.Join(plain, sysexits.Wrap(75, plain)), 75, false, false},
		{"the outermost wins", sysexits.Wrap(65, sysexits.Wrap(74, plain)), 65, false, false},
		{"formatted", sysexits.Errorf(3, "stopped"), 3, false, false},
		{"negative", sysexits.Errorf(-1, "x"), -1, false, false},
		{"permanent", fmt.Errorf("x: %w", sysexits.Permanent(67, plain)), 67, true, false},
		{"permanent taken back", sysexits.Wrap(75, sysexits.Permanent(67, plain)), 75, false, false},
		{"silent", sysexits.Silent(1), 1, false, true},
		{"silent, classified again", sysexits.Wrap(2, sysexits.Silent(1)), 2, false, true},
		{"silent with words", fmt.Errorf("x: %w", sysexits.Silent(1)), 1, false, false},
		{"silent beside another", errors.Join(plain, sysexits.Silent(1)), 1, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := sysexits.Status(tt.err); got != tt.status {
				t.Errorf("Status = %d, want %d", got, tt.status)
			}
			if got := sysexits.IsPermanent(tt.err); got != tt.permanent {
				t.Errorf("IsPermanent = %v, want %v", got, tt.permanent)
			}
			if got := sysexits.IsSilent(tt.err); got != tt.silent {
				t.Errorf("IsSilent = %v, want %v", got, tt.silent)
			}
		})
	}
}

func TestTextAndCauseStay(t *testing.T) {
	err := sysexits.Errorf(sysexits.IO, "reading %q: %w", "f", fs.ErrNotExist)
	if want := `reading "f": file does not exist`; err.Error() != want {
		t.Errorf("text %q, want %q", err, want)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Error("the cause is lost")
	}
}
