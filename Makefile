# What is run by hand and by .ci/run. Everything works on a fresh Debian 12 with the Rust toolchain, as root.

TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: parts test demo bench check

# The real servers that the integration tests, the demo and the benches start.
parts:
	integration/install-parts.sh

test: parts
	cargo test --workspace --locked

demo: parts
	cargo build --locked --release
	cargo run --locked --release --example demo -- $(TARGET)/release/countersign

bench: parts
	cargo bench --locked

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps --locked
	cargo deny --locked check
