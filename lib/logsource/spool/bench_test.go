package spool

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/rolmail/rolmail/lib/logsource"
)

// benchPut puts chunks of one size; what is put is released at once.
func benchPut(b *testing.B, line string, lines int, each bool) {
	s := open(b, Options{Dir: b.TempDir(), SyncEach: each})
	c := &logsource.Chunk{Key: "omprog", State: []byte("12345678"), Lines: []byte(strings.Repeat(line, lines))}
	ctx := context.Background()
	b.SetBytes(int64(len(c.Lines)))
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Put(ctx, c); err != nil {
			b.Fatal(err)
		}
		s.Release(s.End())
	}
	b.ReportMetric(float64(b.N*lines)/b.Elapsed().Seconds(), "lines/s")
}

var line180 = strings.Repeat("x", 179) + "\n"

func BenchmarkPutLine(b *testing.B)     { benchPut(b, line180, 1, false) }
func BenchmarkPut64k(b *testing.B)      { benchPut(b, line180, 364, false) }
func BenchmarkPutSyncEach(b *testing.B) { benchPut(b, line180, 1, true) }
func BenchmarkPut256kSync(b *testing.B) { benchPut(b, line180, 1456, true) }

// BenchmarkRead reads a spool from the page cache, over and over.
func BenchmarkRead(b *testing.B) {
	for _, lines := range []int{1, 364} {
		b.Run(fmt.Sprintf("%dlines", lines), func(b *testing.B) {
			s := open(b, Options{Dir: b.TempDir()})
			c := &logsource.Chunk{Key: "file:/var/log/mail.log", State: bytes.Repeat([]byte("s"), 100), Lines: []byte(strings.Repeat(line180, lines))}
			for s.End() < 200<<20 {
				put(b, s, c)
			}
			r, err := s.NewReader(0)
			if err != nil {
				b.Fatal(err)
			}
			n := int64(0)
			b.ReportAllocs()
			for b.Loop() {
				block, err := r.TryNext()
				if err != nil {
					b.Fatal(err)
				}
				if block == nil { // again from the beginning
					r.Close()
					if r, err = s.NewReader(0); err != nil {
						b.Fatal(err)
					}
					continue
				}
				n += int64(len(block.Lines))
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds()/1e6, "MB/s")
			b.ReportMetric(float64(n)/180/b.Elapsed().Seconds(), "lines/s")
			r.Close()
		})
	}
}
