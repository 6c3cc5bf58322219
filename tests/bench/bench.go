package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// settings are what the environment says, and where things are.
type settings struct {
	lines, runs int
	dir         string // of the generated logs and the databases
	self        string // this program
	rolLogpipe  string
	log         string // the log that is copied
	table       []line
}

// line is one of the table.
type line struct{ what, measured, beside, command string }

func number(name string, def int) (int, error) {
	s := os.Getenv(name)
	if s == "" {
		return def, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%s=%q: not a number above 0", name, s)
	}
	return n, nil
}

func bench() (err error) {
	s := &settings{log: filepath.Join("tests", "lab", "testdata", "lab-a.log")}
	if s.lines, err = number("BENCH_LINES", 1_000_000); err != nil {
		return err
	}
	if s.runs, err = number("BENCH_RUNS", 5); err != nil {
		return err
	}
	if s.self, err = os.Executable(); err != nil {
		return err
	}
	if s.dir = os.Getenv("BENCH_KEEP"); s.dir == "" {
		if s.dir, err = os.MkdirTemp("", "rol-bench-"); err != nil {
			return err
		}
		defer os.RemoveAll(s.dir)
	}
	s.rolLogpipe = filepath.Join(s.dir, "rol-logpipe")
	say("building")
	build := exec.Command("go", "build", "-trimpath", "-tags", "urfave_cli_no_docs", "-ldflags", "-s -w",
		"-o", s.rolLogpipe, "./cmd/rol-logpipe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building rol-logpipe: %w\n%s", err, out)
	}
	for _, step := range []func() error{s.correlate, s.memory, s.database, s.parser, s.search, s.service} {
		if err := step(); err != nil {
			return err
		}
	}
	s.print(os.Stdout)
	return nil
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }

// generated writes a log of the flavour, or finds it if it was kept.
func (s *settings) generated(flavour string, lines int) (string, error) {
	name := filepath.Join(s.dir, fmt.Sprintf("%s-%d.log", flavour, lines))
	if _, err := os.Stat(name); err == nil {
		return name, nil
	}
	say("writing %d lines with %s times", lines, flavour)
	f, err := os.Create(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	gen := exec.Command(s.self, "generate", s.log, flavour, strconv.Itoa(lines))
	gen.Stdout, gen.Stderr = f, os.Stderr
	return name, gen.Run()
}

// usage is what a run took.
type usage struct {
	wall, cpu time.Duration // cpu is user and system time
	rss       int64         // peak, bytes
	out       string
}

// run runs a command and measures it. one is for a single core.
func run(one bool, stdin io.Reader, name string, args ...string) (usage, error) {
	if taskset, err := exec.LookPath("taskset"); err == nil && one {
		args = append([]string{"-c", strconv.Itoa(runtime.NumCPU() - 1), name}, args...)
		name = taskset
	}
	c := exec.CommandContext(context.Background(), name, args...)
	c.Env = append(os.Environ(), "TZ=UTC")
	if one {
		c.Env = append(c.Env, "GOMAXPROCS=1")
	}
	c.Stdin = stdin
	var errs strings.Builder
	c.Stderr = &errs
	begun := time.Now()
	out, err := c.Output()
	took := time.Since(begun)
	if err != nil {
		return usage{}, fmt.Errorf("%s: %w: %s", c, err, strings.TrimSpace(errs.String()))
	}
	ru := c.ProcessState.SysUsage().(*syscall.Rusage)
	return usage{
		wall: took, cpu: c.ProcessState.UserTime() + c.ProcessState.SystemTime(),
		rss: ru.Maxrss << 10, out: string(out),
	}, nil
}

// median is the median of n runs, by a measure.
func median[T cmp.Ordered](n int, one func() (T, error)) (T, error) {
	var all []T
	for range n {
		v, err := one()
		if err != nil {
			return v, err
		}
		all = append(all, v)
	}
	if len(all) == 0 {
		var none T
		return none, fmt.Errorf("no results")
	}
	slices.Sort(all)
	return all[len(all)/2], nil
}

// rate is lines a second.
func rate(lines int, d time.Duration) float64 { return float64(lines) / d.Seconds() }

func millions(r float64) string {
	if r >= 1e6 {
		return fmt.Sprintf("%.2f million", r/1e6)
	}
	return thousands(int(r))
}

// thousands writes 1234567 as 1,234,567.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// correlate measures --dry-run against pflogsumm, on one core each.
func (s *settings) correlate() error {
	iso, err := s.generated("rfc3339", s.lines)
	if err != nil {
		return err
	}
	bsd, err := s.generated("bsd", s.lines)
	if err != nil {
		return err
	}
	cpu := func(file string) (time.Duration, error) {
		return median(s.runs, func() (time.Duration, error) {
			u, err := run(true, nil, s.rolLogpipe, "--dry-run", "--timezone", "UTC", file)
			return u.cpu, err
		})
	}
	say("rol-logpipe --dry-run, %d times", 2*s.runs)
	isoCPU, err := cpu(iso)
	if err != nil {
		return err
	}
	bsdCPU, err := cpu(bsd)
	if err != nil {
		return err
	}
	peer, ratio, err := s.pflogsumm(bsd, rate(s.lines, bsdCPU))
	if err != nil {
		return err
	}
	s.add("parse and correlate, RFC 3339 times", millions(rate(s.lines, isoCPU))+" lines a CPU second", "",
		"rol-logpipe --dry-run FILE")
	s.add("parse and correlate, BSD times", millions(rate(s.lines, bsdCPU))+" lines a CPU second",
		peer, "rol-logpipe --dry-run FILE")
	if ratio != "" {
		s.add("the same, times pflogsumm", ratio, "1", "")
	}
	return nil
}

// pflogsumm measures the peer on the same lines. It is told the syslog names,
// or it skips the lines.
func (s *settings) pflogsumm(file string, ours float64) (peer, ratio string, err error) {
	path, err := exec.LookPath("pflogsumm")
	if err != nil {
		say("pflogsumm is not installed (Debian package pflogsumm): no comparison")
		return "(pflogsumm not installed)", "", nil
	}
	say("pflogsumm, %d times", min(s.runs, 3))
	cpu, err := median(min(s.runs, 3), func() (time.Duration, error) {
		u, err := run(true, nil, path, "--syslog-name", "(?:mx2|out1|mf3)", file)
		if err == nil && !regexp.MustCompile(`(?m)^ *[0-9]+[kmg]? +delivered$`).MatchString(u.out) ||
			regexp.MustCompile(`(?m)^ *0 +delivered$`).MatchString(u.out) {
			err = fmt.Errorf("pflogsumm found no mail in %s", file)
		}
		return u.cpu, err
	})
	if err != nil {
		return "", "", err
	}
	theirs := rate(s.lines, cpu)
	return "pflogsumm " + millions(theirs), fmt.Sprintf("%.1f", ours/theirs), nil
}

// memory measures the peak for a log and for ten times as much, both read
// from a pipe.
func (s *settings) memory() error {
	say("peak memory, twice")
	var peaks []string
	for _, lines := range []int{s.lines, 10 * s.lines} {
		gen := exec.Command(s.self, "generate", s.log, "rfc3339", strconv.Itoa(lines))
		pipe, err := gen.StdoutPipe()
		if err != nil {
			return err
		}
		if err := gen.Start(); err != nil {
			return err
		}
		u, err := run(false, pipe.(*os.File), s.rolLogpipe, "--dry-run", "-")
		if err != nil {
			return err
		}
		if err := gen.Wait(); err != nil {
			return err
		}
		peaks = append(peaks, fmt.Sprintf("%.0f MB", float64(u.rss)/1e6))
	}
	s.add(fmt.Sprintf("peak memory, %s lines", thousands(s.lines)), peaks[0], "", "rol-logpipe --dry-run -")
	s.add("peak memory, 10 times the lines", peaks[1], "", "rol-logpipe --dry-run -")
	return nil
}

// database measures the way into SQLite, from the file to the last index, on
// all cores, and with how much memory.
func (s *settings) database() error {
	file, err := s.generated("rfc3339", s.lines)
	if err != nil {
		return err
	}
	n := min(s.runs, 3)
	say("into SQLite, %d times", n)
	var rss, size int64
	wall, err := median(n, func() (time.Duration, error) {
		dir, err := os.MkdirTemp(s.dir, "db-")
		if err != nil {
			return 0, err
		}
		defer os.RemoveAll(dir)
		db := filepath.Join(dir, "maillog.db")
		u, err := run(false, nil, s.rolLogpipe, "--db", "sqlite:"+db, file)
		if err != nil {
			return 0, err
		}
		rss = max(rss, u.rss)
		if fi, err := os.Stat(db); err == nil {
			size = fi.Size()
		}
		return u.wall, nil
	})
	if err != nil {
		return err
	}
	s.add("into SQLite, end to end", millions(rate(s.lines, wall))+" lines a second", "",
		"rol-logpipe --db sqlite:FILE FILE")
	s.add("the same, peak memory and database", fmt.Sprintf("%.0f MB, %.0f MB", float64(rss)/1e6, float64(size)/1e6), "", "")
	return nil
}

// goBench runs Go benchmarks and returns their result lines.
func goBench(pkg, which string, more ...string) ([]string, error) {
	args := append([]string{"test", "-run", "^$", "-bench", which, "-benchmem"}, more...)
	c := exec.Command("go", append(args, pkg)...)
	out, err := c.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", c, err, out)
	}
	var results []string
	for sc := bufio.NewScanner(strings.NewReader(string(out))); sc.Scan(); {
		if strings.HasPrefix(sc.Text(), "Benchmark") {
			results = append(results, sc.Text())
		}
	}
	return results, nil
}

// resultsOf are the result lines of one benchmark, whose name may end in the
// number of processors.
func resultsOf(results []string, name string) []string {
	is := regexp.MustCompile(`^Benchmark` + regexp.QuoteMeta(name) + `(-[0-9]+)?\s`)
	return slices.DeleteFunc(slices.Clone(results), func(line string) bool { return !is.MatchString(line) })
}

// metric finds the value of a unit in a benchmark's result line.
func metric(result, unit string) string {
	f := strings.Fields(result)
	for i := 1; i < len(f); i++ {
		if f[i] == unit {
			return f[i-1]
		}
	}
	return ""
}

// parser takes the figures of the parser's own benchmark.
func (s *settings) parser() error {
	say("the parser's benchmark")
	results, err := goBench("./lib/maillog", "^BenchmarkParse$")
	if err != nil {
		return err
	}
	for _, r := range results {
		s.add("parser alone", fmt.Sprintf("%s ns and %s allocations a line", metric(r, "ns/line"), metric(r, "allocs/op")), "",
			"go test -bench Parse ./lib/maillog")
	}
	return nil
}

// searches are those of the store's benchmark that the table shows.
var searches = []struct{ name, what string }{
	{"newest", "the newest rows"},
	{"domain-day", "a domain's day"},
	{"qid-in", "a queue id"},
	{"client", "a client address"},
	{"rcpt", "a recipient"},
	{"msgid", "a Message-ID"},
}

// search takes the figures of the store's own benchmark: the first page, in
// 30 day tables of 200,000 rows each.
func (s *settings) search() error {
	say("the store's search benchmark")
	var names []string
	for _, q := range searches {
		names = append(names, q.name)
	}
	results, err := goBench("./lib/maillog/store", "Search/^("+strings.Join(names, "|")+")$")
	if err != nil {
		return err
	}
	for _, q := range searches {
		of := resultsOf(results, "Search/"+q.name)
		if len(of) == 0 {
			return fmt.Errorf("the store's benchmark has no Search/%s", q.name)
		}
		ns, err := strconv.ParseFloat(metric(of[0], "ns/op"), 64)
		if err != nil {
			return fmt.Errorf("%s: %w", of[0], err)
		}
		s.add("search, first page of "+q.what+" in 6 million rows", fmt.Sprintf("%.2f ms", ns/1e6), "",
			"go test -bench Search ./lib/maillog/store")
	}
	return nil
}

func (s *settings) add(what, measured, beside, command string) {
	s.table = append(s.table, line{what, measured, beside, command})
}

// print writes the table in Markdown.
func (s *settings) print(w io.Writer) {
	fmt.Fprintf(w, "%s lines of mail (tests/lab/testdata/lab-a.log again and again under new ids, hosts,\n"+
		"addresses and times), %d cores, %s, medians of %d runs:\n\n", thousands(s.lines), runtime.NumCPU(), cpuName(), s.runs)
	fmt.Fprintln(w, "| what | measured | beside it | command |")
	fmt.Fprintln(w, "|---|---|---|---|")
	for _, l := range s.table {
		if l.command != "" {
			l.command = "`" + l.command + "`"
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", l.what, l.measured, l.beside, l.command)
	}
}

// cpuName is the processor's name, where Linux tells it.
func cpuName() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		if m := regexp.MustCompile(`(?m)^model name\s*: (.*)$`).FindSubmatch(b); m != nil {
			return string(m[1])
		}
	}
	return runtime.GOARCH
}
