package peer

import (
	"os"
	"testing"
)

func TestMemory(t *testing.T) {
	now, most, err := Memory(os.Getpid())
	if err != nil || now < 1<<20 || most < now-now/4 {
		t.Errorf("%d now, %d at most, %v", now, most, err)
	}
	if _, _, err := Memory(-1); err == nil {
		t.Error("no process has memory")
	}
}
