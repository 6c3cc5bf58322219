package logsource

import "context"

const (
	// MaxState is the longest state of a source, bytes.
	MaxState = 4096

	// MaxChunk is the most bytes of lines that a chunk has.
	MaxChunk = 256 << 10

	// MaxKey is the longest name of a source, bytes.
	MaxKey = 512
)

// Chunk is a piece of a source: whole lines, and the state of the source
// behind them. They belong together: who keeps one without the other loses
// lines or has them twice.
type Chunk struct {
	Key   string // names the source, such as file:/var/log/mail.log, fifo:/run/rol/maillog, omprog, stdin; at most MaxKey bytes
	State []byte // opaque, at most MaxState bytes: what the source needs to go on behind Lines; may come with no Lines
	Lines []byte // whole lines, each with its newline; at most MaxChunk bytes
}

// Sink is where chunks go: the spool.
type Sink interface {
	// Put writes a chunk. When it returns nil the chunk survives kill -9. It
	// waits while there is no room, until ctx is done. The chunk's bytes are
	// the caller's again when it returns.
	Put(ctx context.Context, c *Chunk) error

	// State is the state of the last chunk with this key, also from before a
	// restart; nil if there is none.
	State(key string) []byte
}
