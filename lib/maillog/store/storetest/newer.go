package storetest

import (
	"net/url"

	"github.com/rolmail/rolmail/lib/maillog/store/lite"
)

// Newer makes the database at an absolute path one of a later release.
func Newer(path string) error {
	c, err := lite.Open((&url.URL{Scheme: "file", Path: path}).String(), lite.Existing)
	if err != nil {
		return err
	}
	if err := c.Exec("UPDATE meta SET value = 99 WHERE name = 'schema'"); err != nil {
		_ = c.Close()
		return err
	}
	return c.Close()
}
