package store

import "github.com/rolmail/rolmail/lib/maillog/flat"

// Batch is what is committed together: whole, or not at all.
type Batch struct {
	Rows      []*flat.Row
	Delete    []flat.ID
	State     []StateChange
	Positions []Position
}

// StateChange is a change to the open state: the data under a key, or, when
// Data is nil, that the key is gone.
type StateChange struct {
	Key, Data []byte
}

// Position is how far one input has been read. An input is found again by its
// content, not by its name.
type Position struct {
	Prefix    [32]byte // SHA-256 of the first PrefixLen bytes of its (decompressed) content
	PrefixLen int64
	Offset    int64
	Name      string
	Updated   int64 // Unix milliseconds
}
