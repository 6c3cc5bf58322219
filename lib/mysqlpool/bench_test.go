package mysqlpool

import (
	"context"
	"testing"

	"github.com/rolmail/rolmail/tests/peer"
)

// What a session of the pool and a hedged question cost beside a bare
// statement on a session that is kept.
func BenchmarkPool(b *testing.B) {
	m := peer.StartMariaDB(b)
	m.SQL("CREATE DATABASE d")
	p := open(b, &Config{Hosts: []string{address(m)}, User: "root", DBName: "d"}, Options{})
	ctx := context.Background()
	b.Run("statement", func(b *testing.B) {
		c := conn(b, p, address(m))
		defer c.Close()
		for b.Loop() {
			if _, err := answerOne(ctx, c); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("session and statement", func(b *testing.B) {
		for b.Loop() {
			c := conn(b, p, address(m))
			_, err := answerOne(ctx, c)
			if _ = c.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("ask", func(b *testing.B) {
		for b.Loop() {
			if _, err := Ask(ctx, p, answerOne); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("login", func(b *testing.B) {
		for b.Loop() {
			c := conn(b, p, address(m))
			if err := c.Discard(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
