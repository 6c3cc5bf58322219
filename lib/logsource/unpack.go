package logsource

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/rolmail/rolmail/lib/sysexits"
)

// magicLen is how many bytes unpack looks at.
const magicLen = 16

// maxWindow bounds the memory that a zstd file can ask for, bytes: what
// "zstd --long" (27) needs.
const maxWindow = 128 << 20

// unpack finds out by its first bytes whether the input is compressed, and how.
func (s *Source) unpack(magic []byte) error {
	switch {
	case bytes.HasPrefix(magic, []byte("\x1f\x8b")): // RFC 1952
		s.pack = "gzip"
	case bytes.HasPrefix(magic, []byte("\x28\xb5\x2f\xfd")), // RFC 8878, section 3.1.1
		len(magic) > 4 && magic[0]&0xf0 == 0x50 && bytes.HasPrefix(magic[1:], []byte("\x2a\x4d\x18")):
		s.pack = "zstd"
	default:
		s.r = s.raw
		for _, t := range foreignPackers {
			if bytes.HasPrefix(magic, []byte(t.magic)) {
				return sysexits.Errorf(sysexits.Data, "%s: is %s data; unpack it on the way: %s %s | rol-logpipe -",
					s.name, t.name, t.tool, s.name)
			}
		}
		return nil
	}
	if err := s.decompress(io.MultiReader(bytes.NewReader(bytes.Clone(magic)), s.raw)); err != nil {
		return s.readError(err)
	}
	return nil
}

// idleZstd are decompressors that no source uses now. They are big.
var idleZstd sync.Pool

// decompress begins to read the compressed data of in.
func (s *Source) decompress(in io.Reader) (err error) {
	if s.pack == "gzip" {
		s.r, err = newGzip(in)
		return err
	}
	z, _ := idleZstd.Get().(*zstd.Decoder)
	if z == nil {
		z, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return err
		}
	}
	s.r = z
	return z.Reset(in)
}

// release gives a decompressor back.
func (s *Source) release() {
	if z, ok := s.r.(*zstd.Decoder); ok && z.Reset(nil) == nil {
		idleZstd.Put(z)
	}
	if s.pack != "" {
		s.r = nil
	}
}

// park gives the decompressor back until the source's turn comes, if its file
// can be read again: of many files merged by time most wait, and each would
// hold megabytes.
func (s *Source) park() {
	if s.pack == "" || s.file == nil || s.eof || s.err != nil {
		return
	}
	s.release()
	s.parked = true
}

// unpark goes on behind what is in the buffer. Nothing has been given out yet.
func (s *Source) unpark() error {
	s.parked = false
	if _, err := s.file.Seek(s.origin, io.SeekStart); err != nil {
		return err
	}
	s.raw.n.Store(0)
	if err := s.decompress(s.raw); err != nil {
		return err
	}
	_, err := io.CopyN(io.Discard, s.r, s.decoded)
	return cutOff(err)
}

var foreignPackers = []struct{ magic, name, tool string }{
	{"BZh", "bzip2", "bzip2 -dc"},
	{"\xfd7zXZ\x00", "xz", "xz -dc"},
	{"\x04\x22\x4d\x18", "lz4", "lz4 -dc"},
}

// gzipReader reads members one after another, as gzip(1) does, and like it
// takes NULs behind the last one for padding.
type gzipReader struct {
	in *bufio.Reader
	z  *gzip.Reader
}

func newGzip(r io.Reader) (*gzipReader, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, cutOff(err)
	}
	z.Multistream(false)
	return &gzipReader{in, z}, nil
}

// cutOff calls an end where a header should be what it is.
func cutOff(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

var errGarbage = errors.New("what follows is no gzip data")

func (g *gzipReader) Read(b []byte) (int, error) {
	for {
		n, err := g.z.Read(b)
		if err != io.EOF {
			return n, err
		}
		if n > 0 {
			return n, nil
		}
		if err := g.nextMember(); err != nil {
			return 0, err
		}
	}
}

// nextMember goes to the next member; it returns io.EOF where there is none.
func (g *gzipReader) nextMember() error {
	for {
		c, err := g.in.ReadByte()
		if err != nil {
			return err
		}
		if c == 0 {
			continue
		}
		if c != 0x1f {
			return errGarbage
		}
		if err := g.in.UnreadByte(); err != nil {
			return err
		}
		if err := g.z.Reset(g.in); err != nil {
			return cutOff(err)
		}
		g.z.Multistream(false)
		return nil
	}
}

// Type names what the content is if it is something else than text, or "".
func (s *Source) Type() string {
	if len(s.head) > 262 && string(s.head[257:262]) == "ustar" {
		return "tar archive"
	}
	for _, t := range types {
		if bytes.HasPrefix(s.head, []byte(t.magic)) {
			return t.name
		}
	}
	if bytes.IndexByte(s.head, 0) >= 0 {
		return "binary data"
	}
	return ""
}

var types = []struct{ magic, name string }{
	{"\xff\xd8\xff", "JPEG image"},
	{"\x89PNG\r\n", "PNG image"},
	{"GIF8", "GIF image"},
	{"RIFF", "RIFF media file"},
	{"%PDF-", "PDF document"},
	{"\x7fELF", "ELF program"},
	{"PK\x03\x04", "zip archive"},
	{"PK\x05\x06", "zip archive"},
	{"7z\xbc\xaf\x27\x1c", "7z archive"},
	{"Rar!", "RAR archive"},
	{"!<arch>\n", "ar archive or Debian package"},
	{"\xed\xab\xee\xdb", "RPM package"},
	{"SQLite format 3\x00", "SQLite database"},
	{"LPKSHHRH", "systemd journal (try journalctl -o short-iso | rol-logpipe -)"},
	{"\xd4\xc3\xb2\xa1", "packet capture"},
	{"\x0a\x0d\x0d\x0a", "packet capture"},
	{"\xff\xfe", "UTF-16 text"},
	{"\xfe\xff", "UTF-16 text"},
	{"<!DOCTYPE", "HTML document"},
	{"<html", "HTML document"},
	{"\x1f\x8b", "gzip data, compressed twice"},
	{"\x28\xb5\x2f\xfd", "zstd data, compressed twice"},
}
