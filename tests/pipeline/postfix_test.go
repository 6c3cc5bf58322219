package pipeline

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/tests/peer"
)

// postfix is an instance with a configuration, a queue and data of its own.
type postfix struct{ dir, program string }

// masterCF is the part of master.cf that every instance has.
const masterCF = `
pickup    unix  n       -       n       60      1       pickup
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
verify    unix  -       -       n       -       1       verify
flush     unix  n       -       n       1000?   0       flush
proxymap  unix  -       -       n       -       -       proxymap
proxywrite unix -       -       n       -       1       proxymap
smtp      unix  -       -       n       -       -       smtp
relay     unix  -       -       n       -       -       smtp
showq     unix  n       -       n       -       -       showq
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
discard   unix  -       -       n       -       -       discard
local     unix  -       n       n       -       -       local
virtual   unix  -       n       n       -       -       virtual
lmtp      unix  -       -       n       -       -       lmtp
anvil     unix  -       -       n       -       1       anvil
scache    unix  -       -       n       -       1       scache
`

// commonCF is the part of main.cf that both instances have. DNS is not asked:
// there is none in the namespace.
const commonCF = `
compatibility_level = 3.6
mail_owner = postfix
setgid_group = postdrop
inet_protocols = ipv4
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
notify_classes =
smtp_host_lookup = native
disable_dns_lookups = yes
smtpd_peername_lookup = no
smtpd_banner = $myhostname ESMTP
biff = no
smtpd_client_connection_count_limit = 0
`

// startPostfix writes and starts an instance. Its tables are files beside
// main.cf, where @DIR@ stands for that directory.
func startPostfix(t testing.TB, on *machine, dir, mainCF, services string, tables map[string]string) *postfix {
	t.Helper()
	p := &postfix{dir, peer.Need(t, "postfix")}
	etc := filepath.Join(dir, "etc")
	for _, d := range []string{etc, filepath.Join(dir, "queue"), filepath.Join(dir, "data")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	chown(t, filepath.Join(dir, "data"), "postfix")
	mainCF = commonCF + "queue_directory = " + dir + "/queue\ndata_directory = " + dir + "/data\n" +
		strings.ReplaceAll(mainCF, "@DIR@", etc)
	tables["main.cf"], tables["master.cf"] = mainCF, services+masterCF
	for name, text := range tables {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := on.command(p.program, "-c", etc, "start").CombinedOutput(); err != nil {
		t.Fatalf("postfix -c %s start: %v\n%s", etc, err, out)
	}
	return p
}

func chown(t testing.TB, path, name string) {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(path, uid, gid); err != nil {
		t.Fatal(err)
	}
}

// queued is how many mails wait or are on their way; those on hold do not count.
func (p *postfix) queued() (n int) {
	for _, queue := range []string{"maildrop", "incoming", "active", "deferred"} {
		_ = filepath.WalkDir(filepath.Join(p.dir, "queue", queue), func(_ string, d os.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				n++
			}
			return nil
		})
	}
	return n
}

func (p *postfix) reload() {
	_ = exec.Command(p.program, "-c", filepath.Join(p.dir, "etc"), "reload").Run()
}

func (p *postfix) stop() error {
	return exec.Command(p.program, "-c", filepath.Join(p.dir, "etc"), "abort").Run()
}

// The ports and addresses of the cluster.
const (
	mxPort     = 25   // the front, with its rejects at RCPT
	earlyPort  = 2525 // the same that refuses at once
	amavisPort = 10024
	outPort    = 10025

	tooBig       = 20000 // bytes; message_size_limit of the front
	smtpdTimeout = 5     // seconds
)

// startMX starts the instance in front: it takes mail from the internet for
// three domains, refuses much of it, and hands the rest to Amavis.
func startMX(t testing.TB, on *machine, dir, authSocket string) *postfix {
	main := fmt.Sprintf(`
syslog_name = mx-in
enable_long_queue_ids = yes
myhostname = mx.lab.example
inet_interfaces = 127.0.0.1
mynetworks = 127.0.0.2/32
relay_domains = kunde-a.example kunde-b.example kunde-c.example
relay_recipient_maps = regexp:@DIR@/recipients
virtual_alias_maps = regexp:@DIR@/aliases
content_filter = amavis:[127.0.0.1]:%d
relayhost = [127.0.0.3]
message_size_limit = %d
smtpd_timeout = %d
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 4
smtpd_hard_error_limit = 5
smtpd_helo_required = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = unix:%s
smtpd_sasl_security_options = noanonymous
unknown_relay_recipient_reject_code = 550
header_checks = regexp:@DIR@/headers
smtpd_client_restrictions = check_client_access cidr:@DIR@/clients
smtpd_helo_restrictions = reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname
smtpd_sender_restrictions = reject_non_fqdn_sender, check_sender_access regexp:@DIR@/senders
smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination
smtpd_recipient_restrictions = check_recipient_access regexp:@DIR@/greylist
smtpd_data_restrictions = check_sender_access regexp:@DIR@/atdata, reject_unauth_pipelining
smtpd_end_of_data_restrictions = check_sender_access regexp:@DIR@/atend
queue_run_delay = 2s
minimal_backoff_time = 2s
maximal_backoff_time = 4s
`, amavisPort, tooBig, smtpdTimeout, authSocket)
	services := fmt.Sprintf(`
127.0.0.1:%d inet n     -       n       -       40      smtpd
127.0.0.1:%d inet n     -       n       -       10      smtpd
  -o smtpd_delay_reject=no
amavis    unix  -       -       n       -       3       smtp
  -o smtp_send_xforward_command=yes -o disable_dns_lookups=yes -o smtp_data_done_timeout=60s
`, mxPort, earlyPort)
	return startPostfix(t, on, dir, main, services, map[string]string{
		"recipients": "/^(ok|later|expire|bounce|datareject|grey|team)-/ ok\n",
		"aliases":    "/^team-([0-9]+)@kunde-a\\.example$/ ok-${1}t1@kunde-a.example, ok-${1}t2@kunde-b.example\n",
		"headers": "/^Subject: .*forbidden words/ REJECT no such words here\n" +
			"/^Subject: .*strange words/ WARN strange words\n" +
			"/^Subject: .*lost words/ DISCARD lost words\n" +
			"/^Subject: .*held words/ HOLD held words\n",
		"clients":  "127.66.0.0/16 REJECT we do not know you\n",
		"senders":  "/^badsender-/ REJECT we do not like you\n",
		"greylist": "/^grey-/ 450 4.2.0 Greylisted, come back later\n",
		"atdata":   "/^atdata-/ REJECT not at DATA\n",
		"atend":    "/^atend-/ REJECT not after the message\n",
	})
}

// startOut starts the instance behind: it takes from Amavis and hands all to
// the final server, and gives up soon.
func startOut(t testing.TB, on *machine, dir string) *postfix {
	main := `
syslog_name = out
enable_long_queue_ids = no
myhostname = out.lab.example
inet_interfaces = 127.0.0.1
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.3]
smtpd_authorized_xforward_hosts = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions =
smtpd_peername_lookup = no
queue_run_delay = 1s
minimal_backoff_time = 1s
maximal_backoff_time = 2s
maximal_queue_lifetime = 5s
bounce_queue_lifetime = 5s
`
	services := fmt.Sprintf("127.0.0.1:%d inet n - n - 20 smtpd\n", outPort)
	return startPostfix(t, on, dir, main, services, map[string]string{})
}
