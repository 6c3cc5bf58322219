package store

import (
	"slices"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"

	"github.com/rolmail/rolmail/lib/maillog/flat"
	"github.com/rolmail/rolmail/lib/sysexits"
)

// tenant decides what the owner of a domain may see. A nil tenant is the
// postmaster, who sees everything.
type tenant struct {
	domains []string // the domain in its forms, lower case: as A-labels, as U-labels
}

// newTenant reads Query.Domain.
func newTenant(domain string) (*tenant, error) {
	if domain == "" {
		return nil, nil
	}
	forms, err := domainForms(domain)
	if err != nil {
		return nil, sysexits.Errorf(sysexits.Usage, "domain %.80q: %w", domain, err)
	}
	return &tenant{forms}, nil
}

// owns reports whether a domain is the tenant's: the same, not one below it.
func (t *tenant) owns(domain string) bool {
	return domain != "" && slices.Contains(t.domains, strings.ToLower(domain))
}

// view returns what the tenant may see of a row, nil for nothing. A row is the
// tenant's if it went to the domain, or if the domain really sent it: the
// sender of mail that came from outside is a claim. Where only the recipient
// is the tenant's, the address before aliases may be another's, and is left
// out then.
//
// Every row that leaves the package passes here.
func (t *tenant) view(r *flat.Row) *flat.Row {
	if t == nil {
		return r
	}
	sent := t.owns(r.SenderDomain) && (r.Dir == flat.DirOut || r.Dir == flat.DirLocal)
	if !sent && !t.owns(r.RcptDomain) {
		return nil
	}
	if !sent && r.OrigTo != "" && !t.owns(flat.Domain(r.OrigTo)) {
		c := *r
		c.OrigTo = ""
		return &c
	}
	return r
}

type domainError string

func (e domainError) Error() string { return string(e) }

const notADomain = domainError("not a domain; want a name such as example.com")

var (
	toASCII   = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(false))
	toUnicode = idna.New(idna.ValidateLabels(true), idna.BidiRule(), idna.StrictDomainName(false))
)

// domainForms returns the forms in which a domain may stand in the log: in
// ASCII, and with U-labels if it has any; in lower case, without a last dot.
//
// IDNA maps many spellings to one name, as full-width letters to plain ones.
// Of these only upper and lower case, and composed and decomposed accents, are
// taken for the same domain here: a name that merely maps to another tenant's
// is refused.
func domainForms(s string) ([]string, error) {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 || strings.HasPrefix(s, ".") || strings.Contains(s, "..") {
		return nil, notADomain
	}
	for _, r := range s {
		switch {
		case r <= ' ' || r == 0x7f || r == 0xfffd, strings.ContainsRune(`@<>()[]{},;:"\/'*?%&|=+!#$^~`+"`", r):
			return nil, notADomain
		}
	}
	lower := strings.ToLower(norm.NFC.String(s))
	ascii, err := lower, error(nil)
	if !isASCII(s) || strings.Contains(lower, "xn--") {
		if ascii, err = toASCII.ToASCII(lower); err != nil {
			return nil, notADomain
		}
	}
	unicode := ascii
	if strings.Contains(ascii, "xn--") {
		if unicode, err = toUnicode.ToUnicode(ascii); err != nil {
			return nil, notADomain
		}
	}
	if !isASCII(s) && norm.NFC.String(unicode) != lower || isASCII(s) && ascii != lower {
		return nil, notADomain
	}
	// Labels that are not ASCII must stay so: the Kelvin sign's lower case is
	// a k.
	if !sameLabels(s, unicode) {
		return nil, notADomain
	}
	if unicode == ascii {
		return []string{ascii}, nil
	}
	return []string{ascii, unicode}, nil
}

// sameLabels reports whether each label of s that is not ASCII has one that is
// not in u.
func sameLabels(s, u string) bool {
	a, b := strings.Split(s, "."), strings.Split(u, ".")
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !isASCII(a[i]) && isASCII(b[i]) {
			return false
		}
	}
	return true
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
