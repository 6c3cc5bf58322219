// Package man holds manual pages and shell completions against what the
// programs say of themselves by --help, and rol.cf(5) and rol(7) against the
// parameters and columns that there are.
package man

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/lib/config"
	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/tests/peer"
)

func TestMain(m *testing.M) { os.Exit(peer.Run(m)) }

// help is what a program says of itself.
type help struct {
	text     string
	flags    []string         // -v, --verbose, ...
	commands map[string]*help // nil at the innermost
}

var (
	flagLine    = regexp.MustCompile(`(?m)^   ((?:-\w|--[\w-]+)(?:, (?:-\w|--[\w-]+))*)(?: |$)`)
	commandLine = regexp.MustCompile(`(?m)^   ([a-z][\w-]*)`)
)

// askHelp runs a program, and each of its commands, with --help.
func askHelp(t *testing.T, program string, path ...string) *help {
	t.Helper()
	cmd := exec.Command(peer.Program(t, program), append(path, "--help")...)
	cmd.Env = append(os.Environ(), "ROL_CONFIG=/nonexistent")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s --help: %v", program, strings.Join(path, " "), err)
	}
	h := readHelp(string(out))
	for name := range h.commands {
		h.commands[name] = askHelp(t, program, append(slices.Clone(path), name)...)
	}
	return h
}

func readHelp(text string) *help {
	h := &help{text: text, commands: map[string]*help{}}
	options := sections(text, "OPTIONS")
	for _, m := range flagLine.FindAllStringSubmatch(options, -1) {
		h.flags = append(h.flags, strings.Split(m[1], ", ")...)
	}
	for _, m := range commandLine.FindAllStringSubmatch(sections(text, "COMMANDS"), -1) {
		h.commands[m[1]] = nil
	}
	return h
}

// sections returns the text of the sections whose title ends in a word.
func sections(text, word string) string {
	var b strings.Builder
	in := false
	for line := range strings.Lines(text) {
		if line[0] != ' ' && line[0] != '\n' {
			in = strings.HasSuffix(strings.TrimSpace(line), word)
		} else if in {
			b.WriteString(line)
		}
	}
	return b.String()
}

// allFlags are the options of a program and its commands.
func (h *help) allFlags() map[string]bool {
	all := map[string]bool{}
	for _, f := range h.flags {
		all[f] = true
	}
	for _, c := range h.commands {
		maps.Copy(all, c.allFlags())
	}
	return all
}

func read(t *testing.T, name ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(append([]string{peer.Root(t)}, name...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// page finds the page of a program, in section 1 or 8.
func page(t *testing.T, program string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(peer.Root(t), "man", program+".[18]"))
	if err != nil || len(found) != 1 {
		t.Fatalf("want one page man/%s.1 or .8, found %q, %v", program, found, err)
	}
	return read(t, "man", filepath.Base(found[0]))
}

// pageFlags are the options that a page describes: its ".It Fl" items.
func pageFlags(page string) map[string]bool {
	all := map[string]bool{}
	for line := range strings.Lines(page) {
		words := strings.Fields(line)
		if len(words) < 3 || words[0] != ".It" || words[1] != "Fl" {
			continue
		}
		for i := 1; i+1 < len(words); i++ {
			if words[i] == "Fl" {
				all["-"+words[i+1]] = true
			}
		}
	}
	return all
}

// differ names what is in one set and not in the other.
func differ(a, b map[string]bool) (onlyA, onlyB []string) {
	for k := range a {
		if !b[k] {
			onlyA = append(onlyA, k)
		}
	}
	for k := range b {
		if !a[k] {
			onlyB = append(onlyB, k)
		}
	}
	slices.Sort(onlyA)
	slices.Sort(onlyB)
	return onlyA, onlyB
}

func TestPagesMatchHelp(t *testing.T) {
	for _, program := range peer.Programs(t) {
		t.Run(program, func(t *testing.T) {
			h := askHelp(t, program)
			if len(h.flags) == 0 {
				t.Fatalf("no options found in the help:\n%s", h.text)
			}
			text := page(t, program)
			missing, tooMany := differ(h.allFlags(), pageFlags(text))
			if missing != nil {
				t.Errorf("the page has no .It Fl for %s", strings.Join(missing, " "))
			}
			if tooMany != nil {
				t.Errorf("the page describes %s, which --help does not know", strings.Join(tooMany, " "))
			}
			for name := range h.commands {
				if !regexp.MustCompile(`(?m)^\.(It|Ss) (Nm |Cm |Ic )?` + name + `\b`).MatchString(text) {
					t.Errorf("the page has no .It or .Ss for the command %s", name)
				}
			}
		})
	}
}

func TestHelpFitsTheScreen(t *testing.T) {
	var look func(t *testing.T, name string, h *help)
	look = func(t *testing.T, name string, h *help) {
		for line := range strings.Lines(h.text) {
			if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 80 {
				t.Errorf("%s --help: %d columns: %s", name, n, line)
			}
		}
		for _, want := range []string{"USAGE\n", "DESCRIPTION\n", "EXAMPLES\n"} {
			if !strings.Contains(h.text, "\n"+want) {
				t.Errorf("%s --help has no %s", name, strings.TrimSpace(want))
			}
		}
		for sub, c := range h.commands {
			look(t, name+" "+sub, c)
		}
	}
	for _, program := range peer.Programs(t) {
		look(t, program, askHelp(t, program))
	}
}

func TestSections(t *testing.T) {
	for _, program := range peer.Programs(t) {
		wantSections(t, program, page(t, program), "NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "FILES", "EXAMPLES", "SEE ALSO", "BUGS")
	}
	wantSections(t, "rol.7", read(t, "man", "rol.7"), "NAME", "DESCRIPTION", "PROGRAMS", "EXIT STATUS", "FILES", "SEE ALSO", "BUGS")
	wantSections(t, "rol.cf.5", read(t, "man", "rol.cf.5"), "NAME", "DESCRIPTION", "FILES", "EXAMPLES", "SEE ALSO", "BUGS")
}

func wantSections(t *testing.T, name, page string, want ...string) {
	t.Helper()
	for _, s := range want {
		if !strings.Contains(page, "\n.Sh "+s+"\n") {
			t.Errorf("%s has no section %s", name, s)
		}
	}
}

func TestOverviewNamesEveryProgram(t *testing.T) {
	overview := read(t, "man", "rol.7")
	for _, program := range peer.Programs(t) {
		if !strings.Contains(overview, "\n.It Xr "+program+" ") {
			t.Errorf("rol(7) does not list %s", program)
		}
	}
}

func TestLint(t *testing.T) {
	mandoc := peer.Need(t, "mandoc")
	pages, err := filepath.Glob(filepath.Join(peer.Root(t), "man", "*"))
	if err != nil || len(pages) < 2 {
		t.Fatalf("pages %q, %v", pages, err)
	}
	if out, err := exec.Command(mandoc, append([]string{"-Tlint", "-W", "warning"}, pages...)...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// items are the names and the rest of the ".It Va" lines of a page.
func items(page string) (names, rest []string) {
	for _, m := range regexp.MustCompile(`(?m)^\.It Va (\S+)(.*)$`).FindAllStringSubmatch(page, -1) {
		names, rest = append(names, m[1]), append(rest, strings.TrimSpace(m[2]))
	}
	return names, rest
}

func TestSettingsPage(t *testing.T) {
	text := read(t, "man", "rol.cf.5")
	names, rest := items(text)
	var want, wantRest []string
	for _, p := range config.Known {
		def := p.Default
		if def == "" {
			def = "empty"
		}
		want, wantRest = append(want, p.Name), append(wantRest, fmt.Sprintf("Pq %s; default %s", p.Type, def))
		if !strings.Contains(text, "\n.It "+string(p.Type)+"\n") {
			t.Errorf("rol.cf(5) does not explain the type %s", p.Type)
		}
	}
	if !slices.Equal(names, want) {
		t.Errorf("rol.cf(5) describes\n%q\nlib/config knows\n%q", names, want)
	} else if !slices.Equal(rest, wantRest) {
		t.Errorf("rol.cf(5) has types and defaults\n%q\nlib/config has\n%q", rest, wantRest)
	}
	// The example is a file that works.
	_, example, _ := strings.Cut(text, ".Bd -literal -offset indent\n")
	example, _, ok := strings.Cut(example, ".Ed\n")
	if _, err := config.Known.Parse("example", []byte(example)); err != nil || !ok {
		t.Errorf("the example of rol.cf(5): %v\n%s", err, example)
	}
}

func TestOverviewListsTheColumns(t *testing.T) {
	text := read(t, "man", "rol.7")
	names, _ := items(text)
	var want []string
	for _, c := range flat.Columns {
		want = append(want, c.Name)
	}
	if !slices.Equal(names, want) {
		t.Errorf("rol(7) describes\n%q\nthe flat maillog has\n%q", names, want)
	}
	_, outcomes, _ := strings.Cut(text, "\n.It Va outcome\n")
	outcomes, _, _ = strings.Cut(outcomes, "\n.It ")
	for _, o := range flat.Outcomes {
		if !strings.Contains(outcomes, ".Ql "+o) {
			t.Errorf("rol(7) does not name the outcome %s", o)
		}
	}
}

// The readers of help and pages find what there is.
func TestReaders(t *testing.T) {
	h := readHelp("x - y\n\nCOMMANDS\n   find   x\n   show-it\n\nFIND OPTIONS\n   -n, --limit N  rows\n   --long-one\n" +
		"                        with -x\n\nGLOBAL OPTIONS\n   -v, --verbose\n\nEXAMPLES\n   --not this\n")
	if want := []string{"-n", "--limit", "--long-one", "-v", "--verbose"}; !slices.Equal(h.flags, want) {
		t.Errorf("flags %q, want %q", h.flags, want)
	}
	if got := slices.Sorted(maps.Keys(h.commands)); !slices.Equal(got, []string{"find", "show-it"}) {
		t.Errorf("commands %q", got)
	}
	got := slices.Sorted(maps.Keys(pageFlags(".Op Fl x\n.It Fl n , Fl -limit Ar N\n.It Fl -db Ns = Ns Ar DB\n.It Pa f\n")))
	if want := []string{"--db", "--limit", "-n"}; !slices.Equal(got, want) {
		t.Errorf("flags of the page %q, want %q", got, want)
	}
	a, b := differ(map[string]bool{"x": true, "y": true}, map[string]bool{"y": true, "z": true})
	if !slices.Equal(a, []string{"x"}) || !slices.Equal(b, []string{"z"}) {
		t.Errorf("differ: %q, %q", a, b)
	}
}
