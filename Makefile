# What is run by hand and by .ci/run. Everything works on a fresh Debian 12 with the Rust toolchain, as root.

# The tests' unix sockets lie below it, and the path of one may have 107 bytes only.
export TMPDIR := /tmp
TARGET := $(or $(CARGO_TARGET_DIR),target)
# The daemon of the tests can be killed at named steps; one that is released cannot.
TESTED := --locked --features crash-points

.PHONY: parts test demo bench check cargo-deny

# The real servers that the integration tests, the demo and the benches start, and what building needs.
parts:
	integration/install-parts.sh

test: parts
	cargo test --workspace $(TESTED)

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
