//! Compiles the operator's API and what is spoken with etcd, and records when the binary was built.

use std::path::Path;
use std::time::SystemTime;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rustc-env=COUNTERSIGN_BUILT_AT={}", built_at()?);
    // protox compiles without an installed protoc, so that building needs nothing but the Rust toolchain.
    let descriptors = protox::compile(["countersign/v1/admin.proto"], [Path::new("proto")])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    let of_etcd = protox::compile(["etcd/v3/rpc.proto"], [Path::new("proto")])?;
    tonic_prost_build::configure().build_server(false).bytes(".").compile_fds(of_etcd)?;
    Ok(())
}

/// Builds can be reproduced with `SOURCE_DATE_EPOCH`.
fn built_at() -> Result<String, Box<dyn std::error::Error>> {
    if let Ok(fixed) = std::env::var("SOURCE_DATE_EPOCH") {
        return Ok(fixed);
    }
    #[allow(clippy::disallowed_methods, reason = "a build has no other clock")]
    let now = SystemTime::now();
    Ok(now.duration_since(SystemTime::UNIX_EPOCH)?.as_secs().to_string())
}
