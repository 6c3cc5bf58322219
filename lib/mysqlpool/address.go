package mysqlpool

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const defaultPort = "3306"

// sockets are where servers have their unix socket unless told otherwise:
// Debian, Red Hat, MySQL's own packages.
var sockets = []string{"/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock", "/tmp/mysql.sock"}

// defaultSocket is the host that "localhost" means, as in every client of
// MySQL: the first socket that is there, or Debian's.
func defaultSocket() string {
	for _, path := range sockets {
		if fi, err := os.Stat(path); err == nil && fi.Mode()&os.ModeSocket != 0 {
			return "unix:" + path
		}
	}
	return "unix:" + sockets[0]
}

// splitHosts reads the value of hosts. The word localhost stays in it, for
// the option file may say which socket that is.
func splitHosts(v string) ([]string, error) {
	var hosts []string
	for _, item := range strings.FieldsFunc(v, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) }) {
		host, err := oneHost(item)
		if err != nil {
			return nil, err
		}
		hosts = append(hosts, host)
	}
	if len(hosts) > maxHosts {
		return nil, fmt.Errorf("%d hosts: want at most %d", len(hosts), maxHosts)
	}
	return hosts, nil
}

// oneHost brings an item of hosts to one form: unix:/path, localhost, or
// host:port where the port is empty if the item has none.
func oneHost(item string) (string, error) {
	if path, ok := strings.CutPrefix(item, "unix:"); ok {
		if !filepath.IsAbs(path) {
			return "", fmt.Errorf("%.200q: want unix: and an absolute path", item)
		}
		return item, nil
	}
	host, port, err := hostPort(strings.TrimPrefix(item, "inet:"))
	if err != nil {
		return "", fmt.Errorf("%.200q: %w; want host, host:port, [address]:port or unix:/path", item, err)
	}
	if host == "localhost" { // whatever its port: so says the library that Postfix uses
		return host, nil
	}
	return net.JoinHostPort(host, port), nil
}

func hostPort(s string) (host, port string, err error) {
	switch {
	case strings.HasPrefix(s, "["):
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", "", fmt.Errorf("a ] is missing")
		}
		host, port = s[1:end], s[end+1:]
		if port != "" && port[0] != ':' {
			return "", "", fmt.Errorf("want a : behind the ]")
		}
		port = strings.TrimPrefix(port, ":")
	case strings.Count(s, ":") > 1:
		host = s // an IPv6 address has no room for a port
	default:
		host, port, _ = strings.Cut(s, ":")
	}
	if strings.ContainsRune(host, ':') {
		if _, err := netip.ParseAddr(host); err != nil {
			return "", "", fmt.Errorf("no IPv6 address")
		}
	} else if !isName(host) {
		return "", "", fmt.Errorf("no host name")
	}
	if port == "" {
		return host, "", nil
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", "", fmt.Errorf("port %.20q: want 1 to 65535", port)
	}
	return host, port, nil
}

// isName reports whether s can be a host's name or IPv4 address.
func isName(s string) bool {
	for _, c := range []byte(s) {
		if c|0x20 < 'a' && (c < '0' || c > '9') && c != '.' && c != '-' || c|0x20 > 'z' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= 255 && s[0] != '-'
}

// resolve puts the socket and the port in where an item of hosts leaves them
// open. Empty is the default.
func resolve(host, socket, port string) string {
	if socket == "" {
		socket = defaultSocket()
	} else {
		socket = "unix:" + socket
	}
	if port == "" {
		port = defaultPort
	}
	if host == "localhost" {
		return socket
	}
	if name, ok := strings.CutSuffix(host, ":"); ok {
		return name + ":" + port
	}
	return host
}

// network splits a host of a Config into what net.Dial takes.
func network(host string) (netw, addr string) {
	if path, ok := strings.CutPrefix(host, "unix:"); ok {
		return "unix", path
	}
	return "tcp", host
}
