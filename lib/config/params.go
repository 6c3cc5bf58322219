package config

// Known are the parameters of rol.cf(5), all programs' in one place: every
// program must know every name to be able to reject a wrong one. A name starts
// with its tool's.
var Known = Schema{
	{
		Name: "maillog_db", Type: String, Default: "sqlite:/var/lib/rol/maillog.db", Check: notEmpty,
		Doc: "the database of the flat maillog, as type:where",
	},
	{
		Name: "maillog_also_db", Type: List, Check: notEmpty,
		Doc: "further databases that rol-logpipe --follow, --pipe and --omprog write, each at its own pace",
	},
	{
		Name: "maillog_spool", Type: String, Default: "/var/lib/rol/spool", Check: notEmpty,
		Doc: "the directory in which lines wait for the databases",
	},
	{
		Name: "maillog_spool_size", Type: Size, Default: "2G", Check: atLeast(16 << 20),
		Doc: "how much may wait there, bytes",
	},
	{
		Name: "maillog_spool_sync_each", Type: Bool, Default: "no",
		Doc: "sync each line to the disk before it is acknowledged, instead of all of 50 ms together",
	},
	{
		Name: "maillog_listen", Type: String,
		Doc: "host:port or unix:/path where rol-logpipe answers /metrics and /healthz; nowhere if empty",
	},
	{
		Name: "maillog_silence", Type: Duration, Default: "1h",
		Doc: "a host that has not logged for so long is a warning of rol-logpipe check; 0 for never",
	},
	{
		Name: "maillog_own_networks", Type: Networks, Default: "127.0.0.1/32, ::1/128",
		Doc: "networks of the cluster's own users; mail from them has direction out or local",
	},
	{
		Name: "maillog_outgoing_hosts", Type: List,
		Doc: "hosts or Postfix instances that only take mail from inside",
	},
	{
		Name: "maillog_filter_relays", Type: List, Check: hostPort,
		Doc: "content filters whose \"queued as\" names a queue id of the cluster even if the filter's log is missing",
	},
	{
		Name: "maillog_timezone", Type: Zone,
		Doc: "time zone of logs whose lines name none; the machine's if empty",
	},
}
