//! What `proto/etcd/v3/rpc.proto` says, compiled.
#![allow(missing_docs, clippy::all, clippy::restriction, clippy::pedantic, unreachable_pub)]

tonic::include_proto!("etcdserverpb");
