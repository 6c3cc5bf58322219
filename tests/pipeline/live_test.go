package pipeline

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/rolmail/rolmail/tests/peer"
)

// soakEnv asks for every disturbance in every way and with every database.
const soakEnv = "ROL_PIPELINE_SOAK"

// trouble is a disturbance, and where it can hurt.
type trouble struct {
	name    string
	disturb disturbance
	ways    []way
	dbs     [][]string
	spool   string
	over    time.Duration
	hurts   bool // so that it must say so itself
	// standard are the ways and databases that every run of the tests tries:
	// each way and each database meets each kind of trouble somewhere, and the
	// whole stays below five minutes.
	standard [][2]int
}

var (
	allWays   = []way{byFile, byFIFO, byOmprog}
	onlyFile  = []way{byFile}
	eachDB    = [][]string{{sqlite}, {mariadb}}
	onlyMaria = [][]string{{mariadb}}
	bothDBs   = [][]string{{mariadb, sqlite}}
)

var troubles = []trouble{
	{"killed", killLogpipe, allWays, eachDB, "", 10 * time.Second, false, [][2]int{{0, 0}, {1, 1}, {2, 1}}},
	{
		"rotated by rename and killed", together(rotate("rename"), killLogpipe), onlyFile, eachDB, "", 8 * time.Second, false,
		[][2]int{{0, 1}},
	},
	{"rotated by copytruncate", rotate("copytruncate"), onlyFile, eachDB, "", 6 * time.Second, false, [][2]int{{0, 0}}},
	{"rsyslogd restarted", restartRsyslog, allWays, eachDB, "", 6 * time.Second, false, [][2]int{{0, 1}, {1, 0}, {2, 0}}},
	{"mariadbd killed", killMariaDB, allWays, onlyMaria, "", 10 * time.Second, true, [][2]int{{2, 0}}},
	{"mariadbd frozen", freezeMariaDB, allWays, onlyMaria, "", 8 * time.Second, true, [][2]int{{1, 0}}},
	{"no room for the spool", fillSpool, allWays, eachDB, "64m", 8 * time.Second, true, [][2]int{{0, 1}, {2, 0}}},
	{"one database dies", loseDatabase, allWays, bothDBs, "", 6 * time.Second, true, [][2]int{{0, 0}}},
	{"one database dies for a while", killMariaDB, allWays, bothDBs, "", 6 * time.Second, true, [][2]int{{1, 0}}},
}

// Every mail has exactly one right row, whatever happens on the way.
func TestTrouble(t *testing.T) {
	theCluster(t)
	maria := peer.StartMariaDB(t)
	soak := os.Getenv(soakEnv) != ""
	for _, tr := range troubles {
		for i, w := range tr.ways {
			for j, dbs := range tr.dbs {
				if !soak && !slices.Contains(tr.standard, [2]int{i, j}) {
					continue
				}
				c := scenarioCase{name: tr.name, way: w, dbs: dbs, disturb: tr.disturb, spool: tr.spool, over: tr.over, hurts: tr.hurts}
				t.Run(c.title(), func(t *testing.T) { c.run(t, maria) })
			}
		}
	}
}
