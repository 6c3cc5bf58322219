// Package safeio writes files so that a reader, and the machine after a power
// failure, finds the old content or the new, never something between.
package safeio

import (
	"errors"
	"os"
	"path/filepath"
)

// WriteFile replaces the content of path: it writes a temporary file beside
// it, syncs it, renames it over path and syncs the directory. It relies on
// rename(2) being atomic and on fsync(2) of a directory making the name last.
// On failure path is as it was, and the temporary file is gone.
func WriteFile(path string, data []byte, perm os.FileMode) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".tmp-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(perm), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// SyncDir makes the names in a directory last.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
