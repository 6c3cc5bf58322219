package spool

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"

	"github.com/rolmail/rolmail/lib/logsource"
)

// A segment begins with a header, numbers little-endian:
//
//	 0  magic "rolspool"
//	 8  version
//	12  length of the header in bytes, with the table and the checksum
//	16  id of the spool
//	32  base: the logical offset of its first block
//	40  prev: where the segment before it ended, less than base behind a jump
//	48  states: entries in the table
//	52  zero
//	56  the table: length of key, length of state (16 bits each), key, state
//	    CRC-32C of all before
//
// and then come blocks:
//
//	 0  marker
//	 4  CRC-32C of the spool's id and of what follows
//	 8  length of the block in bytes
//	12  length of key, length of state (16 bits each)
//	16  logical offset of the block
//	24  key, state, lines
//
// The id goes into the checksum of a block, and the offset into the block, so
// that what a log line contains, or a block that is not where it was written,
// can never be taken for one of the spool's blocks.
const (
	magic   = "rolspool"
	version = 1

	headFixed = 56 // bytes of a header before its table
	headMin   = headFixed + 4
	headMax   = 17 << 20

	blockHead = 24 // bytes of a block before its key
	blockMax  = blockHead + logsource.MaxKey + logsource.MaxState + logsource.MaxChunk
)

// marker begins a block. It is no text in any encoding that logs come in.
var marker = [4]byte{0xf7, 0xb1, 0x0c, 0xfe}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var le = binary.LittleEndian

// seedOf is what the checksums of a spool's blocks begin with.
func seedOf(id [16]byte) uint32 { return crc32.Checksum(id[:], castagnoli) }

// header is what stands at the beginning of a segment.
type header struct {
	id     [16]byte
	base   int64
	prev   int64
	length int64
	states map[string][]byte
}

// entrySize is the bytes that a state takes in a table.
func entrySize(key string, state []byte) int64 { return int64(4 + len(key) + len(state)) }

// appendHeader adds a header to b, which is empty.
func appendHeader(b []byte, h *header) []byte {
	b = append(b, magic...)
	b = le.AppendUint32(b, version)
	b = le.AppendUint32(b, 0)
	b = append(b, h.id[:]...)
	b = le.AppendUint64(b, uint64(h.base))
	b = le.AppendUint64(b, uint64(h.prev))
	b = le.AppendUint32(b, uint32(len(h.states)))
	b = le.AppendUint32(b, 0)
	keys := make([]string, 0, len(h.states))
	for key := range h.states {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		state := h.states[key]
		b = le.AppendUint16(b, uint16(len(key)))
		b = le.AppendUint16(b, uint16(len(state)))
		b = append(b, key...)
		b = append(b, state...)
	}
	le.PutUint32(b[12:], uint32(len(b)+4))
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

var (
	errForeign = errors.New("no segment of a spool") // does not begin as one
	errVersion = errors.New("of another version")
	errHeader  = errors.New("damaged header")
)

// headerLength is the length that the beginning of a header states.
func headerLength(b []byte) (int64, error) {
	switch {
	case len(b) < headMin:
		return 0, errHeader
	case string(b[:8]) != magic:
		return 0, errForeign
	case le.Uint32(b[8:]) > version:
		return 0, errVersion
	}
	n := int64(le.Uint32(b[12:]))
	if n < headMin || n > headMax {
		return 0, errHeader
	}
	return n, nil
}

// parseHeader reads a whole header; what it keeps is a copy.
func parseHeader(b []byte) (*header, error) {
	n, err := headerLength(b)
	if err != nil {
		return nil, err
	}
	if int64(len(b)) < n || le.Uint32(b[8:]) != version ||
		crc32.Checksum(b[:n-4], castagnoli) != le.Uint32(b[n-4:]) {
		return nil, errHeader
	}
	h := &header{
		id: [16]byte(b[16:32]), base: int64(le.Uint64(b[32:])), prev: int64(le.Uint64(b[40:])),
		length: n, states: map[string][]byte{},
	}
	count := le.Uint32(b[48:])
	rest := b[headFixed : n-4]
	for range count {
		if len(rest) < 4 {
			return nil, errHeader
		}
		k, s := int(le.Uint16(rest)), int(le.Uint16(rest[2:]))
		if k == 0 || k > logsource.MaxKey || s == 0 || s > logsource.MaxState || len(rest) < 4+k+s {
			return nil, errHeader
		}
		h.states[string(rest[4:4+k])] = slices.Clone(rest[4+k : 4+k+s])
		rest = rest[4+k+s:]
	}
	if len(rest) > 0 || h.base < 0 || h.prev < 0 || h.prev > h.base {
		return nil, errHeader
	}
	return h, nil
}

// appendBlock adds a chunk as a block at a logical offset to b, which is empty.
func appendBlock(b []byte, seed uint32, offset int64, c *logsource.Chunk) []byte {
	n := blockHead + len(c.Key) + len(c.State) + len(c.Lines)
	b = slices.Grow(b, n)
	b = append(b, marker[:]...)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, uint32(n))
	b = le.AppendUint16(b, uint16(len(c.Key)))
	b = le.AppendUint16(b, uint16(len(c.State)))
	b = le.AppendUint64(b, uint64(offset))
	b = append(b, c.Key...)
	b = append(b, c.State...)
	b = append(b, c.Lines...)
	le.PutUint32(b[4:], crc32.Update(seed, castagnoli, b[8:]))
	return b
}

// blockLength is the length that the beginning of a block states, 0 if it is
// none. b has at least blockHead bytes.
func blockLength(b []byte) int {
	k, s := int(le.Uint16(b[12:])), int(le.Uint16(b[14:]))
	n := int64(le.Uint32(b[8:])) // the difference of two bounded numbers fits an int
	if [4]byte(b) != marker || k == 0 || k > logsource.MaxKey || s > logsource.MaxState ||
		n < int64(blockHead+k+s) || n > int64(blockHead+k+s+logsource.MaxChunk) {
		return 0
	}
	return int(n)
}

// sound reports whether a whole block has the checksum it should have.
func sound(b []byte, seed uint32) bool {
	return crc32.Update(seed, castagnoli, b[8:]) == le.Uint32(b[4:])
}

func blockOffset(b []byte) int64 { return int64(le.Uint64(b[16:])) }

// parts are the key, the state and the lines of a whole block.
func parts(b []byte) (key, state, lines []byte) {
	k := blockHead + int(le.Uint16(b[12:]))
	s := k + int(le.Uint16(b[14:]))
	return b[blockHead:k], b[k:s], b[s:]
}
