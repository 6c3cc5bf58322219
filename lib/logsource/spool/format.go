package spool

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"

	"github.com/rolmail/rolmail/lib/logsource"
)

// A segment is
//
//	"rolspool"  8 bytes
//	version     uint32
//	checksum    uint32, CRC-32C of what follows in the header
//	id          16 bytes, the spool's
//	base        uint64, the logical offset of the first byte
//
// and then blocks:
//
//	length      uint32, of the payload
//	checksum    uint32, CRC-32C of the length and the payload
//	payload     type, key length, state length, key, state, lines
//
// all little endian. A chunk's payload is of type 'c', or 'n' if it has no
// state of its own. The table of states is a payload of type 's' for each
// source, without lines: to a reader it is a block without lines.
const (
	suffix     = ".seg"
	magic      = "rolspool"
	version    = 1
	headerLen  = 8 + 4 + 4 + 16 + 8
	blockHead  = 8
	payHead    = 1 + 2 + 2
	maxPayload = payHead + logsource.MaxKey + logsource.MaxState + logsource.MaxChunk

	withState    = 'c'
	withoutState = 'n'
	stateOnly    = 's'
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendHeader(b []byte, id [16]byte, base int64) []byte {
	at := len(b)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = append(b, id[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(base))
	binary.LittleEndian.PutUint32(b[at+12:], crc32.Checksum(b[at+16:], castagnoli))
	return b
}

// versionError is for a segment of another program version.
type versionError uint32

func (v versionError) Error() string {
	return fmt.Sprintf("its format is version %d and this program knows %d; use the release that wrote it, or move the spool away", uint32(v), version)
}

// parseHeader reads a segment's header. ok: it is whole.
func parseHeader(b []byte) (id [16]byte, base int64, ok bool, err error) {
	if len(b) < headerLen || string(b[:8]) != magic {
		return id, 0, false, nil
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != version {
		return id, 0, false, versionError(v)
	}
	if crc32.Checksum(b[16:headerLen], castagnoli) != binary.LittleEndian.Uint32(b[12:]) {
		return id, 0, false, nil
	}
	copy(id[:], b[16:])
	return id, int64(binary.LittleEndian.Uint64(b[32:])), true, nil
}

func appendBlock(b []byte, typ byte, key string, state, lines []byte) []byte {
	at := len(b)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, typ)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(key)))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(state)))
	b = append(b, key...)
	b = append(b, state...)
	b = append(b, lines...)
	binary.LittleEndian.PutUint32(b[at:], uint32(len(b)-at-blockHead))
	binary.LittleEndian.PutUint32(b[at+4:], sum(b[at:]))
	return b
}

// sum is the checksum of the block that b is.
func sum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:4], castagnoli), castagnoli, b[blockHead:])
}

func appendChunk(b []byte, c *logsource.Chunk) []byte {
	typ := byte(withState)
	if c.State == nil {
		typ = withoutState
	}
	return appendBlock(b, typ, c.Key, c.State, c.Lines)
}

func appendStates(b []byte, states map[string][]byte) []byte {
	for _, key := range slices.Sorted(maps.Keys(states)) {
		b = appendBlock(b, stateOnly, key, states[key], nil)
	}
	return b
}

// block is a block as it lies in a buffer.
type block struct {
	typ               byte
	key, state, lines []byte
	size              int // of all of it, bytes
}

// parseBlock reads the block that b begins with. need is how many bytes it
// takes to tell, if b has too few. ok: it is whole and right.
func parseBlock(b []byte) (x block, need int, ok bool) {
	if len(b) < blockHead {
		return x, blockHead, false
	}
	n := int(binary.LittleEndian.Uint32(b))
	if n < payHead || n > maxPayload {
		return x, 0, false
	}
	x.size = blockHead + n
	if len(b) < x.size {
		return x, x.size, false
	}
	b = b[:x.size]
	if sum(b) != binary.LittleEndian.Uint32(b[4:]) {
		return x, 0, false
	}
	x.typ = b[blockHead]
	k := int(binary.LittleEndian.Uint16(b[blockHead+1:]))
	st := int(binary.LittleEndian.Uint16(b[blockHead+3:]))
	rest := b[blockHead+payHead:]
	if k == 0 || k+st > len(rest) {
		return x, 0, false
	}
	x.key, x.state, x.lines = rest[:k], rest[k:k+st], rest[k+st:]
	return x, 0, true
}
