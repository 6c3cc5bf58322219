# rolmail. Needs Go and make; "make help" lists what there is.

PREFIX       = /usr/local
BINDIR       = $(PREFIX)/bin
MANDIR       = $(PREFIX)/share/man
BASHDIR      = $(PREFIX)/share/bash-completion/completions
ZSHDIR       = $(PREFIX)/share/zsh/site-functions
FISHDIR      = $(PREFIX)/share/fish/vendor_completions.d
DOCDIR       = $(PREFIX)/share/doc/rolmail
SYSCONFDIR   = /etc
STATEDIR     = /var/lib
DESTDIR      =
BIN          = bin

GO           = go
VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null)
GOFUMPT      = mvdan.cc/gofumpt@v0.12.0
STATICCHECK  = honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME     = 20s
SOAK_LINES   = 20000000
SOAK_DB      = sqlite

PROGRAMS    := $(notdir $(wildcard cmd/*))
PAGES       := $(wildcard man/*.[1-8])
EXAMPLES    := $(filter-out contrib/completion/%,$(wildcard contrib/*/*))
BUILDFLAGS   = -trimpath -tags urfave_cli_no_docs \
	-ldflags '-s -w -X github.com/rolmail/rolmail/lib/command.version=$(VERSION)'

.PHONY: all help check test race fuzz soak bench demo install uninstall clean

all: ## build every program into bin/
	CGO_ENABLED=0 $(GO) build $(BUILDFLAGS) -o $(BIN)/ ./cmd/...

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /  \1	/p' Makefile | expand -t 14

check: ## format, vet, static checks, shell scripts, manual pages, imports
	@out=$$($(GO) run $(GOFUMPT) -l .) || exit; \
	test -z "$$out" || { echo "gofumpt -w is needed for:"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	shellcheck $$(tests/scripts)
	mandoc -Tlint -W warning $(PAGES)
	$(GO) test ./tests/arrows ./tests/man

test: ## install the Debian packages the tests need (as root), then run everything
	tests/install-packages
	$(GO) vet ./...
	$(GO) test -timeout 20m ./...

race: ## all tests with the race detector
	$(GO) test -race -timeout 40m ./...

fuzz: ## every fuzz test for FUZZTIME (20s)
	tests/fuzz $(FUZZTIME)

soak: ## a long look: SOAK_LINES of log into SOAK_DB, races, all trouble of the pipeline, every fuzz test for five minutes
	ROL_SOAK_LINES=$(SOAK_LINES) ROL_SOAK_DB=$(SOAK_DB) $(GO) test -count=1 -timeout 4h -v ./tests/soak
	$(GO) test -race -count=5 -timeout 4h ./...
	ROL_PIPELINE_MAILS=2000 ROL_PIPELINE_SOAK=1 $(GO) test -count=1 -timeout 4h -v ./tests/pipeline
	ROL_FAULT_POINTS=100 $(GO) test -count=1 -timeout 4h -v ./tests/faults ./lib/logsource/spool
	tests/fuzz 5m

bench: ## the figures of the README, with the peers beside them
	tests/bench/run

demo: ## the newest whole thing that works, on sample input
	tests/demo/run

install: all ## install programs, manual pages, completions and examples
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(BASHDIR) $(DESTDIR)$(ZSHDIR) $(DESTDIR)$(FISHDIR)
	install -d $(DESTDIR)$(SYSCONFDIR)/rol
	install -d -m 0750 $(DESTDIR)$(STATEDIR)/rol
	for p in $(PROGRAMS); do \
		install -m 0755 $(BIN)/$$p $(DESTDIR)$(BINDIR)/$$p && \
		install -m 0644 contrib/completion/$$p.bash $(DESTDIR)$(BASHDIR)/$$p && \
		install -m 0644 contrib/completion/_$$p $(DESTDIR)$(ZSHDIR)/_$$p && \
		install -m 0644 contrib/completion/$$p.fish $(DESTDIR)$(FISHDIR)/$$p.fish || exit; \
	done
	for p in $(notdir $(PAGES)); do \
		install -D -m 0644 man/$$p $(DESTDIR)$(MANDIR)/man$${p##*.}/$$p || exit; \
	done
	for f in $(EXAMPLES); do \
		m=0644; test ! -x $$f || m=0755; \
		install -D -m $$m $$f $(DESTDIR)$(DOCDIR)/$$f || exit; \
	done

uninstall: ## remove what install put there; settings and data stay
	for p in $(PROGRAMS); do \
		rm -f $(DESTDIR)$(BINDIR)/$$p $(DESTDIR)$(BASHDIR)/$$p \
			$(DESTDIR)$(ZSHDIR)/_$$p $(DESTDIR)$(FISHDIR)/$$p.fish; \
	done
	for p in $(notdir $(PAGES)); do rm -f $(DESTDIR)$(MANDIR)/man$${p##*.}/$$p; done
	rm -rf $(DESTDIR)$(DOCDIR)/contrib
	rmdir $(DESTDIR)$(SYSCONFDIR)/rol $(DESTDIR)$(STATEDIR)/rol $(DESTDIR)$(DOCDIR) 2>/dev/null || true

clean: ## remove what was built
	rm -rf $(BIN)
