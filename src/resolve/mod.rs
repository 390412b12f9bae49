//! What a tag means for a workload, in the whole cluster: each revision of a service keeps the digest that its tag was signed
//! as when the revision began, as Swarm pins a service.

mod service;

pub use service::{Kind, MAX_PART_BYTES, PodFacts, REVISION_ANNOTATION, Revision, SERVICE_ANNOTATION, Service};
