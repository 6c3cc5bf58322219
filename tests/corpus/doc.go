// Package corpus holds the tests that read other projects' test data, which is
// no part of this one and may be absent: it is looked for beside the repository,
// in ../shared/corpus.
package corpus
