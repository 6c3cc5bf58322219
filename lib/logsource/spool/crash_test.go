//go:build linux && amd64

package spool

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rolmail/rolmail/lib/sysexits"
	"github.com/rolmail/rolmail/tests/killer"
	"github.com/rolmail/rolmail/tests/peer"
)

// The test binary is also the program that is killed: with childEnv it puts
// chunks into the spool there, says which have been put, and ends.
const (
	childEnv   = "ROL_SPOOL_CHILD"         // the directory
	releaseEnv = "ROL_SPOOL_CHILD_RELEASE" // it reads as well, and releases what it has read
	syncEnv    = "ROL_SPOOL_CHILD_SYNC"    // it says how far is synced, and goes on until it is killed
	chunksEach = 40                        // chunks it puts for each of its sources
	waitEnv    = "ROL_SPOOL_CHILD_WAIT"    // how long it waits for room, a duration
)

// memoryDir is a directory in memory, where there is such a thing: what a
// killed process leaves is the same on every file system, and fsync costs
// nothing there.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "rol-spool-*")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		err := child(dir)
		if err != nil {
			fmt.Println("error", err)
		}
		os.Exit(sysexits.Status(err))
	}
	os.Exit(m.Run())
}

func childOptions(dir string) Options {
	o := small(dir)
	o.SyncEvery = time.Millisecond
	return o
}

func child(dir string) error {
	o := childOptions(dir)
	if os.Getenv(syncEnv) != "" { // nothing but SyncTo syncs
		o.SyncEvery, o.SegmentBytes = time.Hour, 128<<10
	}
	s, err := Open(o)
	if err != nil {
		return err
	}
	if os.Getenv(syncEnv) != "" {
		return childSyncs(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var reading sync.WaitGroup
	var readErr error
	if os.Getenv(releaseEnv) != "" {
		reading.Go(func() { readErr = childReads(ctx, s) })
	}
	var putting sync.WaitGroup
	errs := make([]error, 2)
	for i, key := range []string{"a", "b"} {
		putting.Go(func() { errs[i] = childPuts(s, key) })
	}
	putting.Wait()
	cancel()
	reading.Wait()
	return errors.Join(errs[0], errs[1], readErr, s.Close())
}

// childPuts goes on where the state says, as a source does.
func childPuts(s *Spool, key string) error {
	from, _ := strconv.Atoi(string(s.State(key)))
	wait, err := time.ParseDuration(os.Getenv(waitEnv))
	if err != nil {
		wait = time.Minute
	}
	for i := from; i < from+chunksEach; i++ {
		err := errors.New("not yet")
		for try := 0; err != nil; try++ {
			ctx, cancel := context.WithTimeout(context.Background(), wait)
			err = s.Put(ctx, chunk(key, i))
			cancel()
			if err != nil && (try == 3 || s.why() != nil || errors.Is(err, context.DeadlineExceeded)) {
				return err
			}
		}
		os.Stdout.WriteString("put " + key + " " + strconv.Itoa(i) + "\n")
	}
	return nil
}

func childReads(ctx context.Context, s *Spool) error {
	r, err := s.NewReader(s.Begin())
	if err != nil {
		return err
	}
	defer r.Close()
	next := map[string]int{}
	for {
		b, err := r.Next(ctx)
		if errors.Is(err, context.Canceled) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := follows(next, b); err != nil {
			return err
		}
		s.Release(b.To)
	}
}

// command is the child, of a build of this package.
func command(binary, dir string, env ...string) *exec.Cmd {
	c := exec.Command(binary)
	// The race detector would let every child wait a second at its end.
	c.Env = append(append(os.Environ(), childEnv+"="+dir, "GORACE=atexit_sleep_ms=0"), env...)
	return c
}

// puts reads what the child says that it has put: the number behind the last.
func puts(output string, before map[string]int) map[string]int {
	acked := map[string]int{"a": before["a"], "b": before["b"]}
	for s := bufio.NewScanner(strings.NewReader(output)); s.Scan(); {
		var key string
		var i int
		if _, err := fmt.Sscanf(s.Text(), "put %s %d", &key, &i); err == nil {
			acked[key] = i + 1
		}
	}
	return acked
}

// verify checks what is in a spool against what was said to be put, and
// returns the states. released: the beginning may be missing.
func verify(dir string, acked map[string]int, released bool) (map[string]int, error) {
	var logged said
	o := childOptions(dir)
	o.Log = logged.log()
	s, err := Open(o)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	torn := s.Stats().Damages
	r, err := s.NewReader(s.Begin())
	if err != nil {
		return nil, err
	}
	defer r.Close()
	next := map[string]int{}
	if !released {
		next = map[string]int{"a": 0, "b": 0}
	}
	for {
		b, err := r.TryNext()
		if err != nil {
			return nil, err
		}
		if b == nil {
			break
		}
		if err := follows(next, b); err != nil {
			return nil, err
		}
	}
	states := map[string]int{}
	for key, n := range acked {
		state, _ := strconv.Atoi(string(s.State(key)))
		states[key] = state
		if state < n || state > n+1 {
			return nil, fmt.Errorf("%s: state %d, put %d", key, state, n)
		}
		if last, some := next[key]; (some || !released) && last != state {
			return nil, fmt.Errorf("%s: state %d, but chunks to %d", key, state, last)
		}
	}
	if s.Stats().Damages != torn {
		return nil, fmt.Errorf("damage that no crash explains: %s", logged.String())
	}
	return states, nil
}

// points are the moments of count at which to strike. ROL_FAULT_POINTS says
// how many, 0 for all.
func points(count, few int) (all []int) {
	if n, err := strconv.Atoi(os.Getenv("ROL_FAULT_POINTS")); err == nil {
		few = n
	}
	if few == 0 || few > count {
		few = count
	}
	for i := range few {
		all = append(all, 1+i*count/few)
	}
	return all
}

// sweep lets the child meet a fault at many moments, run once more without,
// and returns what is wrong afterwards, and how many faults struck.
func sweep(t *testing.T, binary string, f killer.Fault, few int, env ...string) (hit int, wrong []error) {
	t.Helper()
	work := memoryDir(t)
	before := filepath.Join(work, "before")
	if out, err := command(binary, before).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	released := len(env) > 0
	for _, fresh := range []bool{true, false} {
		prepare := func() (string, map[string]int) {
			dir := filepath.Join(work, "spool")
			if fresh {
				return dir, map[string]int{}
			}
			if err := os.CopyFS(dir, os.DirFS(before)); err != nil {
				t.Fatal(err)
			}
			return dir, map[string]int{"a": chunksEach, "b": chunksEach}
		}
		dir, _ := prepare()
		clean := killer.Fault{Calls: f.Calls}.Run(t, command(binary, dir, env...))
		if clean.Status != 0 || clean.Count < 5 {
			t.Fatalf("undisturbed: %v", clean)
		}
		_ = os.RemoveAll(dir)
		env := env
		if f.Stay { // it would wait for ever
			env = append(slices.Clone(env), waitEnv+"=100ms")
		}
		for _, f.At = range points(clean.Count, few) {
			dir, put := prepare()
			o := f.Run(t, command(binary, dir, env...))
			if o.Hit != "" {
				hit++
			}
			if err := judge(binary, dir, o, put, released); err != nil {
				wrong = append(wrong, fmt.Errorf("%w\n%+v: fault at call %d of %d, new %v: status %d, at %q", err, f.Errno, f.At, clean.Count, fresh, o.Status, o.Hit))
			}
			_ = os.RemoveAll(dir)
		}
	}
	return hit, wrong
}

// judge looks at a spool after a fault, lets the child go on, and looks again.
func judge(binary, dir string, o killer.Outcome, put map[string]int, released bool) error {
	copied := dir + ".copy" // looking mends
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	defer os.RemoveAll(copied)
	put, err := verify(copied, puts(o.Output, put), released)
	if err != nil {
		return fmt.Errorf("after the fault: %w", err)
	}
	out, err := command(binary, dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("going on: %w: %s", err, out)
	}
	want := puts(string(out), put)
	if want["a"] != put["a"]+chunksEach || want["b"] != put["b"]+chunksEach {
		return fmt.Errorf("going on from %v put up to %v", put, want)
	}
	if _, err := verify(dir, want, released); err != nil {
		return fmt.Errorf("after going on: %w", err)
	}
	return nil
}

// faults are what can happen to the child.
var faults = map[string]killer.Fault{
	"killed":            {Calls: killer.Changing},
	"killed in a write": {Calls: killer.Writing, Short: true},
	"full for a moment": {Calls: killer.Filling, Errno: syscall.ENOSPC},
	"full in a write":   {Calls: killer.Filling, Errno: syscall.ENOSPC, Short: true, Stay: true},
	"over quota":        {Calls: killer.Filling, Errno: syscall.EDQUOT, Stay: true},
	"failing":           {Calls: killer.Changing, Errno: syscall.EIO},
	"failing for good":  {Calls: killer.Filling, Errno: syscall.EIO, Short: true, Stay: true},
	"failing to sync":   {Calls: killer.Syncing, Errno: syscall.EIO},
}

func self(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

func TestFaultsAtAnyMoment(t *testing.T) {
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			hit, wrong := sweep(t, self(t), f, 10)
			for _, err := range wrong {
				t.Error(err)
			}
			if hit < 7 {
				t.Errorf("only %d faults struck", hit)
			}
			t.Logf("%d faults", hit)
		})
	}
}

func TestKilledWhileReleasing(t *testing.T) {
	hit, wrong := sweep(t, self(t), killer.Fault{Calls: killer.Changing}, 15, releaseEnv+"=1")
	for _, err := range wrong {
		t.Error(err)
	}
	if hit < 10 {
		t.Errorf("only %d faults struck", hit)
	}
}

// mistakes are changes of the source that the sweeps must notice.
var mistakes = []struct {
	name, file, from, to, fault string
}{
	{
		"a torn tail is not cut off", "load.go",
		"\t\twhole = cur.at\n\t}\n", "\t\twhole = cur.at\n\t}\n\twhole = c.size\n", "killed in a write",
	},
	{
		"the state is written before the lines", "put.go",
		"\tif err := s.write(seg.size()); err != nil {\n\t\treturn err\n\t}\n",
		`	early := &logsource.Chunk{Key: c.Key, State: c.State}
	s.block = appendBlock(s.block[:0], s.seed, seg.end, early)
	if err := s.write(seg.size()); err != nil {
		return err
	}
	s.publish(early, int64(len(s.block)))
	seg, _ = s.last()
	s.block = appendBlock(s.block[:0], s.seed, seg.end, &logsource.Chunk{Key: c.Key, State: c.State, Lines: c.Lines})
	n = int64(len(s.block))
	if err := s.write(seg.size()); err != nil {
		return err
	}
`, "killed",
	},
	{
		"a write error is ignored", "put.go",
		"\t_ = s.cut(at)\n\treturn sysexits.Wrap(sysexits.IO, err)\n", "\treturn nil\n", "full for a moment",
	},
}

// A test of the tests.
func TestMistakesAreNoticed(t *testing.T) {
	goTool := peer.Need(t, "go")
	for _, m := range mistakes {
		t.Run(m.name, func(t *testing.T) {
			dir := t.TempDir()
			source, err := filepath.Abs(m.file)
			if err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(source)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Count(string(b), m.from) != 1 {
				t.Fatalf("%s has not once %q", m.file, m.from)
			}
			changed := filepath.Join(dir, m.file)
			if err := os.WriteFile(changed, []byte(strings.Replace(string(b), m.from, m.to, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{source: changed}})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "overlay"), overlay, 0o600); err != nil {
				t.Fatal(err)
			}
			binary := filepath.Join(dir, "mistaken")
			out, err := exec.Command(goTool, "test", "-c", "-overlay", filepath.Join(dir, "overlay"), "-o", binary, ".").CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			hit, wrong := sweep(t, binary, faults[m.fault], 15)
			if len(wrong) == 0 {
				t.Fatalf("%d faults, and nothing wrong", hit)
			}
			t.Logf("%d faults, %d times wrong: %v", hit, len(wrong), wrong[0])
		})
	}
}

// childSyncs puts, syncs and says so until it is killed.
func childSyncs(s *Spool) error {
	for i := 0; ; i++ {
		if err := s.Put(context.Background(), chunk("a", i)); err != nil {
			return err
		}
		if i%10 == 9 {
			if err := s.SyncTo(s.End()); err != nil {
				return err
			}
			os.Stdout.WriteString("synced " + strconv.Itoa(i) + "\n")
			s.Release(s.End() - 256<<10)
		}
	}
}
