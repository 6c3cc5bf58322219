package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // zone names work on a machine without tzdata

	"github.com/rolmail/rolmail/lib/suggest"
)

// Type is the type of a parameter.
type Type string

// Types of parameters, as rol.cf(5) calls them.
const (
	String   Type = "text"
	Int      Type = "number"
	Bool     Type = "yes or no"
	Duration Type = "time"     // 30s, 10m, 1h30m, 5d, 2w
	Size     Type = "size"     // bytes, or with k, M, G, T for powers of 1024
	List     Type = "list"     // separated by commas, white space or both
	Networks Type = "networks" // a list of 10.0.0.0/8, 2001:db8::/32, or addresses
	Zone     Type = "zone"     // Europe/Rome, UTC; empty is the machine's
)

// Param is one known parameter.
type Param struct {
	Name    string
	Type    Type
	Default string
	Doc     string             // one sentence; rol.cf(5) says the rest
	Check   func(string) error // nil, or what a value (of a List: each item) must hold to
}

// Schema is a set of known parameters. Its order is that of rol.cf(5).
type Schema []Param

// Lookup returns the parameter of that name, or nil.
func (s Schema) Lookup(name string) *Param {
	for i := range s {
		if s[i].Name == name {
			return &s[i]
		}
	}
	return nil
}

// hint ends the message about an unknown name.
func (s Schema) hint(name string) string {
	known := make([]string, len(s))
	for i := range s {
		known[i] = s[i].Name
	}
	if hint := suggest.DidYouMean(strings.ReplaceAll(strings.ToLower(name), "-", "_"), "", known); hint != "" {
		return hint
	}
	return "; rol.cf(5) lists those there are"
}

// check reports why text cannot be a value of p.
func (p *Param) check(text string) error {
	var err error
	switch p.Type {
	case String:
	case Int:
		_, err = parseInt(text)
	case Bool:
		_, err = parseBool(text)
	case Duration:
		_, err = ParseDuration(text)
	case Size:
		_, err = ParseSize(text)
	case List:
		return p.checkItems(text)
	case Networks:
		_, err = ParseNetworks(text)
	case Zone:
		_, err = parseZone(text)
	default:
		panic("config: unknown type " + string(p.Type))
	}
	if err == nil && p.Check != nil {
		err = p.Check(text)
	}
	return err
}

func (p *Param) checkItems(text string) error {
	items, err := parseList(text)
	for _, item := range items {
		if p.Check != nil && err == nil {
			err = p.Check(item)
		}
	}
	return err
}

func parseString(s string) (string, error) { return s, nil }

func parseInt(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%.60q: want a number", s)
	}
	return n, nil
}

func parseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "yes", "true", "on":
		return true, nil
	case "no", "false", "off":
		return false, nil
	}
	return false, fmt.Errorf("%.60q: want yes or no", s)
}

func parseList(s string) ([]string, error) {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }), nil
}

var units = map[byte]time.Duration{
	's': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour,
}

// ParseDuration reads a time as Postfix writes one: numbers, each with a unit
// s, m, h, d or w, as in 90s or 1h30m. Only 0 needs no unit.
func ParseDuration(s string) (time.Duration, error) {
	bad := fmt.Errorf("%.60q: want a time with a unit, such as 30s, 10m, 1h30m, 5d or 2w", s)
	if s == "0" {
		return 0, nil
	}
	if s == "" {
		return 0, bad
	}
	var sum time.Duration
	for rest := s; rest != ""; {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		n, err := strconv.ParseInt(rest[:digits], 10, 64)
		if err != nil || digits == len(rest) {
			return 0, bad
		}
		unit, ok := units[rest[digits]|0x20]
		if !ok {
			return 0, bad
		}
		if n > int64((math.MaxInt64-sum)/unit) {
			return 0, fmt.Errorf("%.60q: too long a time", s)
		}
		sum += time.Duration(n) * unit
		rest = rest[digits+1:]
	}
	return sum, nil
}

// ParseSize reads a number of bytes, with k, M, G or T for powers of 1024.
func ParseSize(s string) (int64, error) {
	num, shift := s, 0
	if s != "" {
		if i := strings.IndexByte("kmgt", s[len(s)-1]|0x20); i >= 0 {
			num, shift = s[:len(s)-1], 10*(i+1)
		}
	}
	n, err := strconv.ParseUint(num, 10, 63)
	if err != nil || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("%.60q: want a size, such as 4096, 64k, 10M or 2G", s)
	}
	return int64(n) << shift, nil
}

// ParseNetworks reads a list of networks; an address is a network of one.
func ParseNetworks(s string) ([]netip.Prefix, error) {
	items, _ := parseList(s)
	nets := make([]netip.Prefix, 0, len(items))
	for _, item := range items {
		if addr, err := netip.ParseAddr(item); err == nil && addr.Zone() == "" {
			nets = append(nets, netip.PrefixFrom(addr, addr.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(item)
		if err != nil {
			return nil, fmt.Errorf("%.60q: want a network such as 192.0.2.0/24 or 2001:db8::/32", item)
		}
		if p != p.Masked() {
			return nil, fmt.Errorf("%.60q: the address has bits beyond its mask; did you mean %s?", item, p.Masked())
		}
		nets = append(nets, p)
	}
	return nets, nil
}

func parseZone(s string) (*time.Location, error) {
	if s == "" {
		return time.Local, nil
	}
	loc, err := time.LoadLocation(s)
	if err != nil {
		return nil, fmt.Errorf("%.60q: no such time zone; want a name such as Europe/Rome or UTC", s)
	}
	return loc, nil
}

// hostPort checks an item such as 127.0.0.1:10024 or [2001:db8::1]:10024.
func hostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 || host == "" {
		return fmt.Errorf("%.60q: want host:port, such as 127.0.0.1:10024 or [::1]:10024", s)
	}
	return nil
}

// notEmpty checks a text that must say something.
func notEmpty(s string) error {
	if s == "" {
		return errors.New("a value is missing after the =")
	}
	return nil
}

// atLeast checks a size that must not be smaller.
func atLeast(least int64) func(string) error {
	return func(s string) error {
		if n, err := ParseSize(s); err == nil && n < least {
			return fmt.Errorf("%.60q: want at least %dM", s, least>>20)
		}
		return nil
	}
}
