package man

import (
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/tests/peer"
)

// offered asks bash what it would offer after some words and a hyphen.
func offered(t *testing.T, program string, words ...string) map[string]bool {
	t.Helper()
	file := filepath.Join(peer.Root(t), "contrib", "completion", program+".bash")
	script := `set -u; . "$1"; shift
COMP_WORDS=("$@" -) COMP_CWORD=$#
fn=$(complete -p "$1" | sed 's/.*-F \([^ ]*\) .*/\1/')
"$fn" "$1" - "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"`
	args := append([]string{"-c", script, "bash", file, program}, words...)
	out, err := exec.Command(peer.Need(t, "bash"), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", file, err, out)
	}
	all := map[string]bool{}
	for _, f := range strings.Fields(string(out)) {
		all[f] = true
	}
	return all
}

func wantSame(t *testing.T, where string, h, have map[string]bool) {
	t.Helper()
	missing, tooMany := differ(h, have)
	if missing != nil || tooMany != nil {
		t.Errorf("%s lacks %q and has %q too many", where, missing, tooMany)
	}
}

// What bash offers is what --help lists, command by command.
func TestBashCompletion(t *testing.T) {
	for _, program := range peer.Programs(t) {
		h := askHelp(t, program)
		own := map[string]bool{}
		for _, f := range h.flags {
			own[f] = true
		}
		wantSame(t, program, own, offered(t, program))
		for name, c := range h.commands {
			wantSame(t, program+" "+name, c.allFlags(), offered(t, program, name))
		}
	}
}

var (
	zshFlag  = regexp.MustCompile(`['{,(*](--?[A-Za-z][\w-]*)`)
	fishFlag = regexp.MustCompile(` -(?:s (\w)|l ([\w-]+))`)
)

// The files for zsh and fish name the same options and commands.
func TestZshAndFishCompletion(t *testing.T) {
	for _, program := range peer.Programs(t) {
		h := askHelp(t, program)
		zsh, fish := map[string]bool{}, map[string]bool{}
		zshText := read(t, "contrib", "completion", "_"+program)
		for _, m := range zshFlag.FindAllStringSubmatch(zshText, -1) {
			zsh[m[1]] = true
		}
		fishText := read(t, "contrib", "completion", program+".fish")
		for line := range strings.Lines(fishText) {
			if !strings.HasPrefix(line, "complete -c "+program+" ") {
				continue
			}
			line, _, _ = strings.Cut(line, " -d ")
			for _, m := range fishFlag.FindAllStringSubmatch(line, -1) {
				if m[1] != "" {
					fish["-"+m[1]] = true
				} else {
					fish["--"+m[2]] = true
				}
			}
		}
		wantSame(t, "_"+program, h.allFlags(), zsh)
		wantSame(t, program+".fish", h.allFlags(), fish)
		for name := range h.commands {
			if !regexp.MustCompile(`\b`+name+`:`).MatchString(zshText) || !strings.Contains(fishText, " -a "+name+" ") {
				t.Errorf("_%s or %s.fish does not offer the command %s", program, program, name)
			}
		}
	}
}

// No completion is left of a program that is gone.
func TestNoStrayCompletion(t *testing.T) {
	programs := peer.Programs(t)
	var want []string
	for _, p := range programs {
		want = append(want, "_"+p, p+".bash", p+".fish")
	}
	files, err := filepath.Glob(filepath.Join(peer.Root(t), "contrib", "completion", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, f := range files {
		have = append(have, filepath.Base(f))
	}
	slices.Sort(want)
	slices.Sort(have)
	if len(programs) > 0 && !slices.Equal(have, want) {
		t.Errorf("contrib/completion has %q, want %q", have, want)
	}
}

func TestCompletionReaders(t *testing.T) {
	got := map[string]bool{}
	for _, m := range zshFlag.FindAllStringSubmatch(`'(-v --verbose)'{-v,--verbose}'[say]' '*--tag[a well-known -x]:t:'`, -1) {
		got[m[1]] = true
	}
	if keys := slices.Sorted(maps.Keys(got)); !slices.Equal(keys, []string{"--tag", "--verbose", "-v"}) {
		t.Errorf("zsh: %q", keys)
	}
}
