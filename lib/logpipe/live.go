package logpipe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/rolmail/rolmail/lib/daemon"
	"github.com/rolmail/rolmail/lib/logsource/spool"
)

// Times of the service.
const (
	stopTime   = 4 * time.Second  // rsyslog gives a child 5 s to end (omprog, closeTimeout)
	hostsEvery = 30 * time.Second // how often the list of hosts is written
)

// Service is the live pipeline as a program is asked for it: sources that
// never end, a spool, and an engine for each database.
//
// Lines go from the sources to the spool, and are acknowledged there; each
// engine takes them from it at its own pace. So a source waits for the spool
// and for nothing else, and a database for nobody.
type Service struct {
	Options
	Program   string // name and version
	DBs       []string
	Follow    bool
	Files     []string // to follow: files, globs, or - for standard input
	Pipe      string   // a FIFO
	Omprog    bool     // rsyslog's child
	Spool     string   // directory
	SpoolSize int64    // bytes
	SyncEach  bool
	Listen    string // for /metrics and /healthz; "" for nowhere

	Stdin       io.Reader
	Stdout      io.Writer
	Log         *slog.Logger
	Hangup      <-chan struct{}            // look at the files again
	Interrupted func(context.Context) bool // was it a signal that ended the context?
	Now         func() time.Time           // the wall clock: shown and stored, nothing is decided by it

	openDB  func(where string) (database, error) // for tests; nil is store.Open
	begun   time.Time
	spool   *spool.Spool
	engines []*engine

	mu    sync.Mutex
	feeds []feed
}

// Run runs the service until its input ends or ctx is done. A signal is the
// ordinary end: what has been read is committed, and the error is nil.
func (s *Service) Run(ctx context.Context) (err error) {
	s.begun = s.Now()
	thrift()
	s.spoolDir = s.Spool
	if err := s.checkSources(); err != nil {
		return err
	}
	if s.spool, err = spool.Open(s.spoolOptions()); err != nil {
		return err
	}
	defer func() { err = joined(err, s.spool.Close()) }()
	for _, where := range s.DBs {
		e := newEngine(where, s.Options, s.spool, s.Log, s.Now)
		if s.openDB != nil {
			e.open = func() (database, error) { return s.openDB(where) }
		}
		s.engines = append(s.engines, e)
	}
	s.loadHosts()
	stopServer, err := s.serve()
	if err != nil {
		return err
	}
	defer stopServer()
	err = s.work(ctx)
	_ = daemon.Notify(daemon.Stopping)
	if err == nil && ctx.Err() != nil && !s.Interrupted(ctx) {
		err = context.Cause(ctx)
	}
	if err := s.saveHosts(); err != nil { // who logs again is known again: no reason to have failed
		s.Log.Warn("the list of hosts is not written", "reason", err)
	}
	return err
}

// thrift has the collector run when the heap has grown by two fifths, and not only
// when it has doubled: of a service that runs for years most of the heap is
// open mails, which stay. GOGC in the environment overrides it.
func thrift() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(40)
	}
}

func (s *Service) spoolOptions() spool.Options {
	return spool.Options{
		Dir: s.Spool, MaxBytes: s.SpoolSize, SyncEach: s.SyncEach, Log: s.Log, Beside: []string{hostsFile, socketName},
	}
}

// work runs sources and engines until the input ends, something fails for
// good, or ctx is done, and then brings them to their ends.
func (s *Service) work(ctx context.Context) error {
	hard, kill := context.WithCancelCause(context.WithoutCancel(ctx)) // of the engines
	defer kill(nil)
	soft, stopFeeds := context.WithCancel(ctx)
	defer stopFeeds()

	engines := newGroup(len(s.engines))
	for _, e := range s.engines {
		engines.run(func() error { return e.run(hard) })
	}
	s.settle(ctx)
	list, err := s.openFeeds(s.resume())
	if err != nil {
		kill(errStopped)
		<-engines.ended
		return err
	}
	s.setFeeds(list)
	feeds := newGroup(len(list))
	for _, f := range list {
		feeds.run(func() error { return f.start(soft) })
	}
	_ = daemon.Notify(daemon.Ready)
	minders := newGroup(2)
	minders.run(func() error { s.release(soft); return nil })
	minders.run(func() error { s.mind(soft); return nil })

	ended := false
	select {
	case <-ctx.Done():
	case <-feeds.ended: // the input ended
		ended = true
	case err = <-feeds.failed:
	case err = <-engines.failed:
	case <-s.spool.Failed(): // also while nothing comes that would hear of it
		err = s.spool.Err()
	}
	stopFeeds()
	patient := ended && !s.Omprog // a child of rsyslog is waited for 5 s only
	for _, e := range s.engines {
		if patient {
			close(e.noMore)
		} else {
			close(e.stop)
		}
	}
	if patient {
		select {
		case <-engines.ended:
		case err = <-engines.failed:
		case <-ctx.Done():
			for _, e := range s.engines {
				close(e.stop)
			}
		}
	}
	select {
	case <-engines.ended:
	case <-time.After(stopTime):
		s.Log.Warn("the databases did not take the last rows in time; they come after the next start")
	}
	kill(errStopped)
	<-engines.ended
	<-minders.ended
	select {
	case <-feeds.ended:
	case <-time.After(grace): // a read of standard input may never end
	}
	return joined(err, feeds.first(), engines.first())
}

// joined joins errors. What several say, as all do of a spool that has failed,
// is said once.
func joined(errs ...error) error {
	var all []error
	for _, err := range errs {
		if err != nil && !slices.ContainsFunc(all, func(said error) bool { return said.Error() == err.Error() }) {
			all = append(all, err)
		}
	}
	if len(all) == 1 {
		return all[0]
	}
	return errors.Join(all...)
}

var errStopped = errors.New("the service ends")

// group is goroutines that begin and end together.
type group struct {
	failed chan error    // the first failure
	ended  chan struct{} // all have ended
	left   int
	mu     sync.Mutex
	err    error
}

func newGroup(n int) *group {
	g := &group{failed: make(chan error, 1), ended: make(chan struct{}), left: n}
	if n == 0 {
		close(g.ended)
	}
	return g
}

// run runs one of the n functions.
func (g *group) run(f func() error) {
	go func() {
		err := f()
		g.mu.Lock()
		defer g.mu.Unlock()
		if err != nil && g.err == nil {
			g.err = err
			g.failed <- err
		}
		if g.left--; g.left == 0 {
			close(g.ended)
		}
	}()
}

// first is the failure that was not received from failed.
func (g *group) first() error {
	select {
	case err := <-g.failed:
		return err
	default:
		return nil
	}
}

// releaseEvery is how often the spool is told what is not needed any more.
const releaseEvery = 500 * time.Millisecond

// release lets the spool forget what every database has.
func (s *Service) release(ctx context.Context) {
	tick := time.NewTicker(releaseEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if to, ok := s.releasable(); ok {
			s.spool.Release(to)
		}
	}
}

// releasable is what nobody needs any more: what every database has committed.
//
// A database that is away may hold the spool full until nothing can come in.
// As long as it is the only one, or none is written, that is right: the
// sources wait. But where another one is written, that one must not stand
// still for it: then the missing one loses its oldest lines, and says so when
// it comes back.
func (s *Service) releasable() (to int64, ok bool) {
	const none = math.MaxInt64
	all, written := int64(none), int64(none)
	starting := false
	for _, e := range s.engines {
		done, begun, away := e.progress()
		switch {
		case begun && !away:
			written = min(written, done)
		case !away:
			starting = true
		case !begun:
			done = 0
		}
		all = min(all, done)
	}
	switch {
	case starting || all == none:
		return 0, false
	case written != none && written > all && s.spool.Stats().Waiting > 0:
		return written, true
	}
	return all, true
}

// mind does what is done now and then: SIGHUP, the list of hosts, systemd.
func (s *Service) mind(ctx context.Context) {
	tick := time.NewTicker(hostsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.Hangup:
			s.Log.Info("looking at the files again")
			for _, f := range s.listFeeds() {
				if f.again != nil {
					f.again()
				}
			}
		case <-tick.C:
			if err := s.saveHosts(); err != nil {
				s.Log.Warn("the list of hosts is not written", "reason", err)
			}
			_ = daemon.Notify("STATUS=" + s.oneLine())
		}
	}
}

// oneLine is what systemctl status shows.
func (s *Service) oneLine() string {
	r := s.report()
	if r.Degraded != nil {
		return "degraded since " + local(*r.Degraded, s.Now()) + ": " + r.Reasons[0]
	}
	var lines int64
	for i := range r.Databases {
		lines = max(lines, r.Databases[i].Lines)
	}
	return fmt.Sprintf("%d lines of %d hosts, %s in the spool", lines, len(r.Hosts), size(r.Spool.Bytes))
}

// The first engine's hosts are those of all: every engine reads every line.

func (s *Service) loadHosts() {
	for _, e := range s.engines {
		e.hosts.load(s.Spool, s.Now(), time.Now())
	}
}

func (s *Service) saveHosts() error {
	if len(s.engines) == 0 {
		return nil
	}
	e := s.engines[0]
	e.mu.Lock()
	data, err := e.hosts.save(s.Now(), time.Now())
	e.mu.Unlock()
	if err != nil {
		return err
	}
	return writeHosts(s.Spool, data)
}

// serve answers on the spool's socket, and where Listen says.
func (s *Service) serve() (stop func(), err error) {
	own, err := daemon.Listen(filepath.Join(s.Spool, socketName))
	if err != nil {
		return nil, err
	}
	all := []net.Listener{own}
	for _, f := range daemon.Files()["http"] {
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			s.Log.Warn("a descriptor from systemd is no listener", "reason", err)
			continue
		}
		all = append(all, l)
	}
	if s.Listen != "" {
		l, err := daemon.Listen(s.Listen)
		if err != nil {
			own.Close()
			return nil, err
		}
		all = append(all, l)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		daemon.Serve(ctx, handler(s.report), all...)
	}()
	return func() { cancel(); <-ended }, nil
}

// report gathers what the parts have to say.
func (s *Service) report() *Report {
	now := time.Now()
	r := &Report{
		Program: s.Program, PID: os.Getpid(), Started: s.begun.UTC(),
		Spool: spoolReport(s.spool, s.Spool, s.Now()), Sources: []SourceReport{}, Hosts: []HostReport{},
	}
	for _, f := range s.listFeeds() {
		r.Sources = append(r.Sources, f.report(now)...)
	}
	for i, e := range s.engines {
		r.Databases = append(r.Databases, e.report())
		if i == 0 {
			e.mu.Lock()
			r.Hosts = e.hosts.report(now)
			e.mu.Unlock()
		}
	}
	r.judge()
	return r
}
