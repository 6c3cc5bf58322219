package pipeline

import (
	"testing"
	"time"

	"github.com/rolmail/rolmail/tests/peer"
)

// soakEnv asks for every way and every database in every case.
const soakEnv = "ROL_PIPELINE_SOAK"

// cases are the standard set, in order. Each disturbance meets at least one
// way and one database that it can hurt.
var cases = []scenarioCase{
	{name: "killed", way: byFile, dbs: []string{sqlite}, disturb: killLogpipe, over: 12 * time.Second},
	{name: "killed", way: byFIFO, dbs: []string{mariadb}, disturb: killLogpipe, over: 12 * time.Second},
	{name: "killed", way: byOmprog, dbs: []string{mariadb}, disturb: killLogpipe, over: 12 * time.Second},
	{name: "rotated by rename and killed", way: byFile, dbs: []string{mariadb}, disturb: together(rotate("rename"), killLogpipe), over: 10 * time.Second},
	{name: "rotated by copytruncate", way: byFile, dbs: []string{sqlite}, disturb: rotate("copytruncate"), over: 8 * time.Second},
	{name: "rsyslogd restarted", way: byFile, dbs: []string{mariadb}, disturb: restartRsyslog, over: 8 * time.Second},
	{name: "rsyslogd restarted", way: byFIFO, dbs: []string{sqlite}, disturb: restartRsyslog, over: 8 * time.Second},
	{name: "rsyslogd restarted", way: byOmprog, dbs: []string{sqlite}, disturb: restartRsyslog, over: 8 * time.Second},
	{name: "mariadbd killed", way: byOmprog, dbs: []string{mariadb}, disturb: killMariaDB, over: 12 * time.Second},
	{name: "mariadbd frozen", way: byFIFO, dbs: []string{mariadb}, disturb: freezeMariaDB, over: 8 * time.Second},
	{name: "no room for the spool", way: byOmprog, dbs: []string{sqlite}, disturb: fillSpool, spool: "64m", over: 8 * time.Second},
	{name: "no room for the spool", way: byFile, dbs: []string{mariadb}, disturb: fillSpool, spool: "64m", over: 8 * time.Second},
	{name: "one database dies", way: byFile, dbs: []string{mariadb, sqlite}, disturb: loseDatabase, over: 8 * time.Second},
}

func TestChaos(t *testing.T) {
	theCluster(t)
	maria := peer.StartMariaDB(t)
	for _, c := range cases {
		t.Run(c.title(), func(t *testing.T) { c.run(t, maria) })
	}
}
