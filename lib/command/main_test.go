package command_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/rolmail/rolmail/lib/command"
)

// With this variable in the environment the test binary is a program whose
// behaviour as a process is looked at; its value says what it does.
const programEnv = "ROL_TEST_PROGRAM"

func TestMain(m *testing.M) {
	what := os.Getenv(programEnv)
	if what == "" {
		os.Exit(m.Run())
	}
	var opts []command.Option
	if kind, ok := strings.CutPrefix(what, "delivery-"); ok {
		what, opts = kind, append(opts, command.Delivery)
	}
	app := &cli.App{Name: "rol-test", ArgsUsage: "[ARG]...", Action: programs[what]}
	command.Main(app, opts...)
}

var programs = map[string]cli.ActionFunc{
	"yes": func(c *cli.Context) error { // writes until it is told to stop
		for c.Context.Err() == nil {
			if _, err := fmt.Fprintln(c.App.Writer, "y"); err != nil {
				return err
			}
		}
		return c.Context.Err()
	},
	"wait": func(c *cli.Context) error { // ends as soon as it may
		fmt.Fprintln(c.App.Writer, "ready")
		<-c.Context.Done()
		return fmt.Errorf("reading: %w", c.Context.Err())
	},
	"drain": func(c *cli.Context) error { // ends well
		fmt.Fprintln(c.App.Writer, "ready")
		<-c.Context.Done()
		fmt.Fprintln(c.App.Writer, "drained", command.Interrupted(c.Context))
		return nil
	},
	"deaf": func(c *cli.Context) error { // does not heed the context
		fmt.Fprintln(c.App.Writer, "ready")
		<-c.Context.Done()
		fmt.Fprintln(c.App.Writer, "first")
		select {}
	},
	"crash": func(*cli.Context) error { // panics where nobody can catch it
		go panic("oh")
		select {}
	},
	"args": func(c *cli.Context) error {
		_, err := fmt.Fprintln(c.App.Writer, c.Args().Slice())
		return err
	},
}

func program(t *testing.T, what string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), programEnv+"="+what)
	return cmd
}

// ended is how a process ended, as a shell shows it.
func ended(err error) string {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return fmt.Sprint(err)
	}
	ws := exit.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return ws.Signal().String()
	}
	return fmt.Sprint(ws.ExitStatus())
}

func TestProcessArguments(t *testing.T) {
	out, err := program(t, "args", "a", "h").Output()
	if err != nil || string(out) != "[a h]\n" {
		t.Errorf("%v, %q", err, out)
	}
}

// Like "rol-maillog search | head -1".
func TestReaderGoesAway(t *testing.T) {
	cmd := program(t, "yes")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	stdout.Close()
	if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
		t.Errorf("ended with %s, stderr %q", ended(err), stderr.String())
	}
}

func TestDiskFull(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full here: ", err)
	}
	defer full.Close()
	for _, args := range [][]string{nil, {"--help"}, {"--version"}} {
		cmd := program(t, "args", args...)
		var stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = full, &stderr
		if how := ended(cmd.Run()); how != "74" || !strings.Contains(stderr.String(), "no space left on device") {
			t.Errorf("%q: ended with %s, stderr %q", args, how, stderr.String())
		}
	}
}

func TestSignals(t *testing.T) {
	for _, tt := range []struct {
		what, after, how, stderr string
		signals                  []syscall.Signal
	}{
		{"wait", "", "interrupt", "rol-test: interrupted by signal: interrupt\n", []syscall.Signal{syscall.SIGINT}},
		{"wait", "", "terminated", "rol-test: interrupted by signal: terminated\n", []syscall.Signal{syscall.SIGTERM}},
		{"drain", "drained true\n", "<nil>", "", []syscall.Signal{syscall.SIGTERM}},
		{"deaf", "first\n", "terminated", "", []syscall.Signal{syscall.SIGINT, syscall.SIGTERM}},
		{"delivery-wait", "", "75", "rol-test: interrupted by signal: terminated\n", []syscall.Signal{syscall.SIGTERM}},
	} {
		t.Run(fmt.Sprint(tt.what, tt.signals), func(t *testing.T) {
			cmd := program(t, tt.what)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			pipe, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() }).Stop()
			stdout := bufio.NewReader(pipe)
			var rest string
			for _, sig := range tt.signals { // each after a line that says that it may come
				line, err := stdout.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				if line != "ready\n" {
					rest += line
				}
				if err := cmd.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
			}
			more, err := io.ReadAll(stdout)
			if err != nil {
				t.Fatal(err)
			}
			how := ended(cmd.Wait())
			if how != tt.how || rest+string(more) != tt.after || stderr.String() != tt.stderr {
				t.Errorf("ended with %s, stdout %q, stderr %q", how, rest+string(more), stderr.String())
			}
		})
	}
}

// Postfix bounces on the 2 of a panic, and defers on a death by signal.
func TestCrash(t *testing.T) {
	for what, want := range map[string]string{"crash": "2", "delivery-crash": "aborted"} {
		if how := ended(program(t, what).Run()); how != want {
			t.Errorf("%s: ended with %s, want %s", what, how, want)
		}
	}
}
