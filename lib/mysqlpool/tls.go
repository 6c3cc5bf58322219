package mysqlpool

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/rolmail/rolmail/lib/sysexits"
)

// maxCAFiles bounds what is read of a tls_CApath.
const maxCAFiles = 1000

// tlsConfig makes what crypto/tls needs, without a server's name; nil if TLS
// is not asked for.
//
// A CA that is named is always used: the certificate must be signed by it,
// as ssl-mode=VERIFY_CA of MySQL's library. TLSVerify asks for the host's
// name in it too, and without a CA for one that the system trusts. With
// neither the connection is only encrypted.
func (c *Config) tlsConfig() (*tls.Config, error) {
	if !c.TLS {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.TLSCertFile != "" {
		cert, err := tls.LoadX509KeyPair(c.TLSCertFile, c.TLSKeyFile)
		if err != nil {
			return nil, tlsError("tls_cert_file, tls_key_file", err)
		}
		t.Certificates = []tls.Certificate{cert}
	}
	roots, err := c.roots()
	if err != nil {
		return nil, err
	}
	t.RootCAs = roots
	if !c.TLSVerify {
		t.InsecureSkipVerify = true // of the name
		if roots != nil {
			t.VerifyConnection = func(s tls.ConnectionState) error { return chain(s, roots) }
		}
	}
	t.CipherSuites = suites(c.TLSCiphers)
	return t, nil
}

func tlsError(what string, err error) error {
	status := sysexits.Config
	if errors.Is(err, fs.ErrPermission) {
		status = sysexits.NoPerm
	}
	return sysexits.Errorf(status, "%s: %w", what, err)
}

// chain checks that the server's certificate is signed by one of roots,
// whatever name it bears.
func chain(s tls.ConnectionState, roots *x509.CertPool) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("the server has no certificate")
	}
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, cert := range s.PeerCertificates[1:] {
		opts.Intermediates.AddCert(cert)
	}
	if _, err := s.PeerCertificates[0].Verify(opts); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: s.PeerCertificates, Err: err}
	}
	return nil
}

// roots are the certificates of tls_CAfile and tls_CApath, nil if there is
// neither.
func (c *Config) roots() (*x509.CertPool, error) {
	if c.TLSCAFile == "" && c.TLSCAPath == "" {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if c.TLSCAFile != "" {
		pem, err := os.ReadFile(c.TLSCAFile)
		if err != nil {
			return nil, tlsError("tls_CAfile", err)
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, sysexits.Errorf(sysexits.Config, "tls_CAfile: %s: no certificate in it; want PEM", c.TLSCAFile)
		}
	}
	if c.TLSCAPath != "" {
		if err := addDirectory(pool, c.TLSCAPath); err != nil {
			return nil, err
		}
	}
	return pool, nil
}

func addDirectory(pool *x509.CertPool, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return tlsError("tls_CApath", err)
	}
	found := false
	for _, e := range entries[:min(len(entries), maxCAFiles)] {
		path := filepath.Join(dir, e.Name())
		if fi, err := os.Stat(path); err != nil || !fi.Mode().IsRegular() || fi.Size() > 1<<20 {
			continue
		}
		if pem, err := os.ReadFile(path); err == nil && pool.AppendCertsFromPEM(pem) {
			found = true
		}
	}
	if !found {
		return sysexits.Errorf(sysexits.Config, "tls_CApath: %s: no file in it has a certificate; want PEM", dir)
	}
	return nil
}

// suites are the cipher suites of a list of OpenSSL's for TLS 1.2; nil, Go's
// own choice, if none of them is known by that name. Those of TLS 1.3 are not
// to be chosen.
func suites(list string) []uint16 {
	var ids []uint16
	for name := range strings.FieldsFuncSeq(list, func(r rune) bool { return strings.ContainsRune(": ,", r) }) {
		for _, s := range tls.CipherSuites() {
			if openssl(s.Name) == name || s.Name == name {
				ids = append(ids, s.ID)
			}
		}
	}
	return ids
}

// openssl is OpenSSL's name of a suite: ECDHE-RSA-AES128-GCM-SHA256 is
// TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256.
func openssl(name string) string {
	name = strings.TrimPrefix(name, "TLS_")
	name = strings.Replace(name, "_WITH_", "_", 1)
	name = strings.Replace(name, "AES_", "AES", 1)
	name = strings.Replace(name, "CHACHA20_POLY1305_SHA256", "CHACHA20_POLY1305", 1)
	return strings.ReplaceAll(name, "_", "-")
}

// forHost is a TLS configuration for one host.
func forHost(t *tls.Config, netw, addr string) *tls.Config {
	if t == nil || netw == "unix" {
		return nil
	}
	t = t.Clone()
	t.ServerName, _, _ = net.SplitHostPort(addr)
	return t
}
