//! What `countersign inspect --output json` prints: one object, whose tags are written as they come.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::inspect::{Seen, Shower};
use super::or_null;
use super::root::{pin_json, root_json};
use crate::admin::v1::{self, inspect_response::Part};

/// Writes one JSON object.
#[derive(Debug)]
pub struct InspectJson<W> {
    out: W,
    repository: Option<v1::Repository>,
    roles: Vec<v1::Role>,
    tags: u64,
}

impl<W: Write> InspectJson<W> {
    /// Writes to `out`.
    pub const fn new(out: W) -> Self {
        Self { out, repository: None, roles: Vec::new(), tags: 0 }
    }

    /// Everything before the tags, which are the last member: so they need not be held all at once.
    fn begin_tags(&mut self) -> io::Result<()> {
        let Some(repository) = &self.repository else { return Ok(()) };
        let text = head_json(repository, &self.roles).to_string();
        let open = text.strip_suffix('}').unwrap_or(&text);
        write!(self.out, "{open},\"tags\":[")?;
        self.roles.clear();
        Ok(())
    }
}

impl<W: Write> Shower for InspectJson<W> {
    fn take(&mut self, part: Part) -> io::Result<()> {
        match part {
            Part::Repository(repository) => self.repository = Some(repository),
            Part::Role(role) => self.roles.push(role),
            Part::Tags(tags) => {
                for tag in tags.tags {
                    if self.tags == 0 {
                        self.begin_tags()?;
                    }
                    write!(self.out, "{}{}", if self.tags == 0 { "" } else { "," }, tag_json(&tag))?;
                    self.tags = self.tags.saturating_add(1);
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        if self.repository.is_none() {
            return Ok(());
        }
        if self.tags == 0 {
            self.begin_tags()?;
        }
        writeln!(self.out, "]}}")?;
        self.out.flush()
    }

    fn seen(&self) -> Option<Seen> {
        self.repository.as_ref().map(Seen::of)
    }
}

fn head_json(repository: &v1::Repository, roles: &[v1::Role]) -> Value {
    let refusal =
        |refusal: &v1::Refusal| json!({ "code": refusal.code, "reason": refusal.message, "cannot-tell-now": refusal.cannot_tell_now });
    json!({
        "repository": repository.repository,
        "trust-server": or_null(&repository.server),
        "now": repository.now,
        "pin": repository.pin.as_ref().map(pin_json),
        "refusal": repository.refusal.as_ref().map(refusal),
        "trust-data": repository.trust_data.as_ref().map(data_json),
        "root": repository.root.as_ref().map(root_json),
        "roles": roles.iter().map(role_json).collect::<Vec<_>>(),
        "number-of-roles": repository.roles,
        "number-of-tags": repository.tags,
    })
}

pub(super) fn data_json(data: &v1::TrustData) -> Value {
    json!({
        "server": data.server,
        "from-held-evidence": data.from_held_evidence,
        "found-good-at": or_null(&data.found_good_at),
        "ignores-expiry": data.ignores_expiry,
        "valid-until": or_null(&data.valid_until),
    })
}

fn role_json(role: &v1::Role) -> Value {
    json!({
        "role": role.name,
        "version": (role.version > 0).then_some(role.version),
        "expires": or_null(&role.expires),
        "threshold": role.threshold,
        "tags": role.tags,
        "fault": or_null(&role.fault),
        "paths": role.paths,
        "keys": role.keys.iter().map(key_json).collect::<Vec<_>>(),
        "more-keys": role.more_keys,
    })
}

fn key_json(key: &v1::Key) -> Value {
    json!({
        "key": or_null(&key.key),
        "id": key.id,
        "fault": or_null(&key.fault),
        "common-name": or_null(&key.common_name),
        "not-before": or_null(&key.not_before),
        "not-after": or_null(&key.not_after),
        "signer": or_null(&key.signer),
        "teams": key.teams,
        "revoked": key.is_revoked,
        "signature": standing_json(key.standing()),
    })
}

/// A word for programs.
pub(super) const fn standing_json(standing: v1::Standing) -> &'static str {
    match standing {
        v1::Standing::Counts => "counts",
        v1::Standing::Revoked => "revoked",
        v1::Standing::CertificateEnded => "certificate-ended",
        v1::Standing::NotSigned => "not-signed",
        v1::Standing::Unspecified => "unspecified",
    }
}

fn tag_json(tag: &v1::Tag) -> Value {
    let signed_by = |by: &v1::SignedBy| {
        json!({
            "role": by.role, "key": by.key, "signer": or_null(&by.signer), "teams": by.teams,
            "certificate-ends": or_null(&by.certificate_ends),
        })
    };
    json!({
        "tag": tag.tag,
        "digest": or_null(&tag.digest),
        "released-by": or_null(&tag.released_by),
        "signed-by": tag.signed_by.iter().map(signed_by).collect::<Vec<_>>(),
        "fault": or_null(&tag.fault),
        "listed-in": tag.listed_in,
    })
}
