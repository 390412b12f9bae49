# What is run by hand and by .ci/run. Everything works on a fresh Debian 12 with the Rust toolchain, as root.

# The tests' unix sockets lie below it, and the path of one may have 107 bytes only.
export TMPDIR := /tmp
TARGET := $(or $(CARGO_TARGET_DIR),target)
# The daemon of the tests can be killed at named steps; one that is released cannot.
TESTED := --locked --features crash-points

# The most telling first. How long each is run, and the longest input where the usual 16 KiB say nothing more; an attack
# of a few bytes only is none, so that `verify` does not begin with those.
FUZZ_TARGETS := verify role_file canonical_json certificate codec reference config import cri_messages
FUZZ_SECONDS := 60
CARGO_FUZZ := RUSTC_WRAPPER=$(CURDIR)/fuzz/rustc cargo fuzz
LENGTH_verify := -max_len=256 -len_control=0
LENGTH_reference := -max_len=1024

# How long `make chaos` makes trouble, and by which chance: CHAOS_SEED=<number> repeats a run, as far as processes can be.
CHAOS_SECONDS := 300
export CHAOS_SECONDS

# Within how long all nodes of `make cluster-test` start an image.
SIMULATION_SECONDS := 60
export SIMULATION_SECONDS

.PHONY: parts test chaos cluster-test demo bench check cargo-deny cargo-fuzz fuzz fuzz-seeds

# The real servers that the integration tests, the demo and the benches start, and what building needs.
parts:
	integration/install-parts.sh
	integration/unpack-containerds.sh $(TARGET)/containerds

# The last lines say which releases of containerd the tests ran on, as these report it themselves.
test: parts
	rm -rf $(TARGET)/containerds-ran
	cargo test --workspace $(TESTED); status=$$?; \
	for version in $(TARGET)/containerds-ran/*; do sed 's/^/tests ran on /' "$$version" || exit 1; done; exit $$status

# Pods, attacks, faults and kills at random, on the real servers; ends with a table, and with an error if a promise was broken.
chaos: parts
	cargo test $(TESTED) --test integration chaos::for_minutes -- --ignored --nocapture

# A thousand nodes and ten thousand services in one process, on a real etcd and a real notary server; ends with a table, and with
# an error if a promise was broken. UPDATE_DOCS=1 writes the table and its plot into docs/.
cluster-test: parts
	cargo test --release $(TESTED) --test simulation a_thousand_nodes -- --ignored --nocapture

demo: parts
	cargo build --locked --release --bin countersign --example demo
	$(TARGET)/release/examples/demo $(TARGET)/release/countersign

bench: parts
	cargo bench --locked --bench gate

# Format, lint, documentation, dependencies: everything that needs no server.
check: cargo-deny
	cargo fmt --all --check
	cargo clippy --workspace --all-targets $(TESTED) -- --deny warnings
	cargo clippy --workspace --locked -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps --locked
	cargo deny --locked check bans licenses sources

cargo-deny:
	command -v cargo-deny >/dev/null || cargo install --locked cargo-deny@0.20.2

# Every fuzzer for a while, one after the other; ends with the first finding. fuzz/README.md says what to do with it.
fuzz: cargo-fuzz fuzz-seeds
	$(CARGO_FUZZ) build --sanitizer none
	$(foreach target,$(FUZZ_TARGETS),$(call run-fuzzer,$(target)))

define run-fuzzer
	$(CARGO_FUZZ) run --sanitizer none $(1) -- -max_total_time=$(FUZZ_SECONDS) $(or $(LENGTH_$(1)),-max_len=16384) -timeout=10 -rss_limit_mb=2048

endef

# What the fuzzers begin with, made from the tests' archives.
fuzz-seeds:
	cargo run --locked --example fuzz-seeds

cargo-fuzz:
	command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz@0.13.2
