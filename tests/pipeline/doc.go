// Package pipeline lets real mail run through a real cluster of its own, Postfix,
// Amavis, Postfix and a final server, with rsyslogd handing the lines to
// rol-logpipe, and holds the rows against what the sender and the final server
// know. README.md tells the topology and what is disturbed on the way.
package pipeline
