package store

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/rolmail/rolmail/lib/maillog/flat"
)

// pattern is a text in which * stands for any characters, compared without
// regard to case.
type pattern struct {
	parts []string // lower case, between the stars
}

// fold is a text in lower case. A letter beyond ASCII stays one: the lower
// case of the Kelvin sign is a k, and no database would find it for one.
func fold(s string) string {
	if isASCII(s) {
		return strings.ToLower(s)
	}
	return strings.Map(func(r rune) rune {
		if l := unicode.ToLower(r); r < utf8.RuneSelf || l >= utf8.RuneSelf {
			return l
		}
		return r
	}, s)
}

func newPattern(s string) *pattern {
	if s == "" {
		return nil
	}
	return &pattern{strings.Split(fold(s), "*")}
}

func (p *pattern) match(s string) bool {
	if s == "" {
		return false
	}
	s = fold(s)
	first, last := p.parts[0], p.parts[len(p.parts)-1]
	if len(p.parts) == 1 {
		return s == first
	}
	if len(s) < len(first)+len(last) || !strings.HasPrefix(s, first) || !strings.HasSuffix(s, last) {
		return false
	}
	s = s[len(first) : len(s)-len(last)]
	for _, part := range p.parts[1 : len(p.parts)-1] {
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s = s[i+len(part):]
	}
	return true
}

// literal is the text if there is no star in it.
func (p *pattern) literal() (string, bool) { return p.parts[0], len(p.parts) == 1 }

// address is what Query.Sender or Query.Rcpt asks for.
type address struct {
	null    bool // <>: the empty address
	local   *pattern
	domain  *pattern
	whole   string   // local@domain, where neither has a star
	domains []string // the forms of a domain without a star
}

// newAddress reads anna@example.com, @example.com, anna@, patterns, and what
// has no @ at all.
func newAddress(s string) (*address, error) {
	if s == "" {
		return nil, nil
	}
	if s == "<>" {
		return &address{null: true}, nil
	}
	bare := bareID(s)
	if bare == "" || bare == "@" {
		return nil, fmt.Errorf("%.80q: want an address, @domain, user@, or a pattern with *", s)
	}
	i := strings.LastIndexByte(bare, '@')
	if i < 0 {
		return &address{local: newPattern(bare), whole: noStar(bare)}, nil
	}
	a := &address{local: newPattern(bare[:i]), domain: newPattern(bare[i+1:])}
	if a.local != nil && bare[:i] == "*" {
		a.local = nil
	}
	if a.domain == nil {
		a.domain = newPattern("*")
	}
	if d, ok := a.domain.literal(); ok {
		a.domains = []string{d}
		if forms, err := domainForms(d); err == nil {
			a.domains = forms
		}
		if a.local != nil {
			a.whole = noStar(bare)
		}
	}
	return a, nil
}

func noStar(s string) string {
	if strings.Contains(s, "*") {
		return ""
	}
	return s
}

func (a *address) match(s string) bool {
	if a.null {
		return s == ""
	}
	if s == "" {
		return false
	}
	i := strings.LastIndexByte(s, '@')
	if i < 0 {
		return a.domain == nil && a.local.match(s)
	}
	if a.domain == nil {
		// Something without @: a pattern over the whole address, if it is one.
		_, literal := a.local.literal()
		return !literal && a.local.match(s)
	}
	if a.local != nil && !a.local.match(s[:i]) {
		return false
	}
	if a.domains == nil {
		return a.domain.match(s[i+1:])
	}
	return slices.Contains(a.domains, flat.Domain(s))
}
