// Package mysqlpool is the one way to a MySQL or MariaDB of several hosts.
//
// # What it holds
//
// The hosts of a mysql_table(5) file in order of preference, each with a
// database/sql pool of its own. Conn gives a session on the active host: the
// first one, until it fails. A host is down after a connect that failed or a
// session that was lost, which the network connection itself reports, so that
// no caller has to. It is then probed in the background, with pauses that
// double from Backoff to MaxBackoff and full jitter. Whoever asks for a
// session meanwhile gets one on the next host; where no host is up, each is
// tried once more at once, so a single host that was restarted is there again
// with the next call.
//
// # Failback
//
// Sessions are made on the preferred host again when it has been healthy for
// Healthy, the last switch is CoolDown ago, and Fresh, if given, finds that
// it has caught up. A Conn in use is never cut for it: Stale tells its user to
// come back for a new one.
//
// Ask is for one short question: whoever of the hosts answers first.
//
// # What bounds it
//
// A server that hangs (stopped, or behind a network that swallows packets)
// costs a caller Dial or Login for a new session and Read for a statement;
// then it is down. At most maxHosts hosts, MaxIdle idle sessions each, and
// one goroutine each that begins with the first Conn. Error texts that are
// kept are cut at maxError.
//
// # What happens on restart
//
// Nothing is kept: the first host is tried first.
package mysqlpool

import (
	"context"
	"crypto/tls"
	"database/sql"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os/user"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/rolmail/rolmail/lib/sysexits"
)

// Options say how a pool works. Zero values get the defaults.
type Options struct {
	Log *slog.Logger // hosts that go down or up, switches, warnings; the driver's own lines at debug

	Dial  time.Duration // for a network connection; 2 s
	Login time.Duration // for a login, for setting up the session and for a probe, each; 5 s
	Read  time.Duration // that the server may be silent while it works on a statement; 30 s. Conn.Silence changes it
	Write time.Duration // that it may take nothing of what is sent; 30 s

	Probe      time.Duration // between probes of a host that is up; 5 s
	Backoff    time.Duration // before the first probe of one that is down, at most; 1 s
	MaxBackoff time.Duration // before later ones, at most; Config.Retry, or 60 s
	Healthy    time.Duration // before failback; 30 s
	CoolDown   time.Duration // between a switch and a failback; 30 s
	Hedge      time.Duration // before Ask asks another host as well; 300 ms
	Budget     time.Duration // for an Ask; 3 s
	MaxIdle    int           // idle sessions kept for each host; 4
	MaxLife    time.Duration // of a session that is not in use; 5 min

	// Fresh says whether a preferred host has caught up with what the active
	// one has, before a failback to it. An error counts as no.
	Fresh func(ctx context.Context, c *Conn) (bool, error)

	// Params are session variables, as name and plain value, that each
	// session gets and that are then read back. Where they say nothing of
	// them, time_zone is +00:00 and sql_mode STRICT_ALL_TABLES and
	// NO_ENGINE_SUBSTITUTION; an empty value leaves the server's. A name
	// beginning with wsrep_ that the server does not know is left out.
	Params map[string]string

	Random      bool   // hosts in random order, unix sockets first, as Postfix takes them
	Writable    bool   // a host with read_only=ON is none for us
	Interpolate bool   // put arguments into the statement's text instead of preparing it
	ParseTime   bool   // DATE and DATETIME as time.Time, in UTC
	FoundRows   bool   // RowsAffected counts rows that an UPDATE found, changed or not
	Grants      string // the privileges that the program needs, for Word: "SELECT, INSERT"
}

func (o *Options) defaults(cfg *Config) {
	set := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	set(&o.Dial, 2*time.Second)
	set(&o.Login, 5*time.Second)
	set(&o.Read, 30*time.Second)
	set(&o.Write, 30*time.Second)
	set(&o.Probe, 5*time.Second)
	set(&o.Backoff, time.Second)
	set(&o.MaxBackoff, cfg.Retry)
	set(&o.MaxBackoff, time.Minute)
	set(&o.Healthy, 30*time.Second)
	set(&o.CoolDown, 30*time.Second)
	set(&o.MaxLife, 5*time.Minute)
	set(&o.Hedge, 300*time.Millisecond)
	set(&o.Budget, 3*time.Second)
	if o.MaxIdle <= 0 {
		o.MaxIdle = 4
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	params := map[string]string{"time_zone": "+00:00", "sql_mode": "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION"}
	for name, value := range o.Params {
		params[name] = value
	}
	o.Params = params
}

// Pool is a MySQL or MariaDB of one or several hosts. It is safe for use by
// many goroutines.
type Pool struct {
	cfg   *Config
	opt   Options
	vars  []variable
	hosts []*host

	active   atomic.Int32 // index of the host that sessions are made on
	switches atomic.Uint64

	mu       sync.Mutex // of what follows
	switched time.Time
	watching bool
	closed   bool
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup
}

// Open makes a pool, and no connection yet.
func Open(cfg *Config, opt Options) (*Pool, error) {
	opt.defaults(cfg)
	vars, err := variables(opt.Params)
	if err != nil {
		return nil, sysexits.Wrap(sysexits.Bug, err)
	}
	t, err := cfg.tlsConfig()
	if err != nil {
		return nil, sysexits.Wrap(sysexits.Status(err), fmt.Errorf("%s: %w", cfg.Path, err))
	}
	own := *cfg
	if u, err := user.Current(); own.User == "" && err == nil {
		own.User = u.Username // as MySQL's library
	}
	p := &Pool{cfg: &own, opt: opt, vars: vars}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	if len(cfg.Hosts) == 0 || len(cfg.Hosts) > maxHosts {
		return nil, sysexits.Errorf(sysexits.Config, "%s: %d hosts: want 1 to %d", cfg.Path, len(cfg.Hosts), maxHosts)
	}
	for rank, name := range order(cfg.Hosts, opt.Random) {
		if err := p.addHost(rank, name, t); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// order is the order of preference.
func order(hosts []string, random bool) []string {
	hosts = slices.Clone(hosts)
	if random {
		rand.Shuffle(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
		socket := func(host string) int { return min(1, len(host)-len(strings.TrimPrefix(host, "unix:"))) }
		slices.SortStableFunc(hosts, func(a, b string) int { return socket(b) - socket(a) })
	}
	return hosts
}

func (p *Pool) addHost(rank int, name string, t *tls.Config) error {
	h := &host{pool: p, rank: rank, name: name, kick: make(chan struct{}, 1)}
	h.netw, h.addr = network(name)
	m := mysql.NewConfig()
	m.User, m.Passwd, m.DBName = p.cfg.User, p.cfg.Password, p.cfg.DBName
	m.Net, m.Addr, m.TLS = h.netw, h.addr, forHost(t, h.netw, h.addr)
	m.ReadTimeout, m.WriteTimeout = p.opt.Read, p.opt.Write
	m.MaxAllowedPacket = 0 // the server's: a longer one would cost the session
	m.Logger = quietLog{p.opt.Log}
	m.InterpolateParams, m.ParseTime, m.ClientFoundRows = p.opt.Interpolate, p.opt.ParseTime, p.opt.FoundRows
	if err := m.Apply(mysql.Charset("utf8mb4", "")); err != nil {
		return sysexits.Wrap(sysexits.Bug, err)
	}
	c, err := newConnector(h, m)
	if err != nil {
		return sysexits.Errorf(sysexits.Config, "%s: host %.200q: %w", p.cfg.Path, name, err)
	}
	h.db = sql.OpenDB(c)
	h.db.SetMaxIdleConns(p.opt.MaxIdle)
	h.db.SetConnMaxLifetime(p.opt.MaxLife)
	h.db.SetConnMaxIdleTime(p.idle())
	p.hosts = append(p.hosts, h)
	return nil
}

func (p *Pool) idle() time.Duration {
	if p.cfg.Idle > 0 {
		return p.cfg.Idle
	}
	return time.Minute
}

// Hosts says how the hosts are, in the order of preference.
func (p *Pool) Hosts() []HostState {
	states := make([]HostState, len(p.hosts))
	for i, h := range p.hosts {
		states[i] = h.state()
	}
	return states
}

// Switches counts how often another host became the active one.
func (p *Pool) Switches() uint64 { return p.switches.Load() }

// Close ends the watching and closes all idle sessions. Those in use are
// closed by their users.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	p.wg.Wait()
	for _, h := range p.hosts {
		_ = h.db.Close()
	}
	return nil
}

// start begins to watch the hosts, once.
func (p *Pool) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return sql.ErrConnDone
	}
	if p.watching {
		return nil
	}
	p.watching = true
	for _, h := range p.hosts {
		p.wg.Go(func() { h.watch(p.ctx) })
	}
	return nil
}

// activate makes sessions go to h from now on.
func (p *Pool) activate(h *host, why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	from := p.hosts[p.active.Load()]
	if from == h {
		return
	}
	p.active.Store(int32(h.rank))
	p.switched = time.Now()
	p.switches.Add(1)
	p.opt.Log.Warn("database host changed", "host", h.name, "was", from.name, "reason", why)
}

// elect moves on from an active host that is down to the best one that is not
// known to be, if there is one.
func (p *Pool) elect() {
	if p.hosts[p.active.Load()].condition() != down {
		return
	}
	for _, h := range p.hosts {
		if h.condition() != down {
			p.activate(h, "the other is down")
			return
		}
	}
}

// failback makes h the active host if it is preferred to the one that is, and
// ready.
func (p *Pool) failback(ctx context.Context, h *host) {
	if int32(h.rank) >= p.active.Load() || h.healthy() < p.opt.Healthy {
		return
	}
	p.mu.Lock()
	cool := time.Since(p.switched) >= p.opt.CoolDown
	p.mu.Unlock()
	if cool && p.fresh(ctx, h) {
		p.activate(h, "preferred and healthy")
	}
}

// fresh asks Fresh about h.
func (p *Pool) fresh(ctx context.Context, h *host) bool {
	if p.opt.Fresh == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, p.opt.Read)
	defer cancel()
	sc, err := h.session(ctx)
	if err != nil {
		return false
	}
	c := newConn(sc, h)
	defer c.Close()
	ok, err := p.opt.Fresh(ctx, c)
	if err != nil {
		p.opt.Log.Warn("no failback: cannot tell whether the preferred database host is behind",
			"host", h.name, "error", clean(err.Error()))
		return false
	}
	return ok
}
