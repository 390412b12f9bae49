//! A confirmation as it is signed, and as it is written.

use countersign_trust::evidence::Gun;
use countersign_trust::time::UnixTime;
use serde::{Deserialize, Serialize};

use super::{CONFIRMED, Confirmation, MAX_EVIDENCE_BYTES_OF_ONE, key};
use crate::resolve::error::ResolveError;
use crate::resolve::vouch::WrittenVoucher;
use crate::store::{Key, Revision as Moment};

/// The form of what is written.
const VERSION: u32 = 3;

impl Confirmation {
    /// What the node has signed.
    pub(super) fn statement(&self, cluster: &str) -> Vec<u8> {
        let Self { gun, evidence, evidence_bytes, since, at, turn, .. } = self;
        let (evidence, turn) = (evidence.to_string(), turn.map(Moment::number));
        let said = ("countersign confirmation", cluster, gun.as_str(), evidence, evidence_bytes, since.seconds(), at.seconds(), turn);
        // Text and numbers are always written.
        serde_json::to_vec(&said).unwrap_or_default()
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, ResolveError> {
        let Self { gun, evidence, evidence_bytes, since, at, turn, voucher } = self;
        let written = Written {
            version: VERSION,
            repository: gun.as_str().to_owned(),
            evidence: evidence.to_string(),
            evidence_bytes: *evidence_bytes,
            since: since.seconds(),
            at: at.seconds(),
            turn: turn.map(Moment::number),
            voucher: voucher.as_ref().map(WrittenVoucher::from),
        };
        serde_json::to_vec(&written).map_err(|_| ResolveError::Internal { what: "a confirmation that cannot be written" })
    }

    pub(super) fn decode(gun: &Gun, bytes: &[u8]) -> Option<Self> {
        let written: Written = serde_json::from_slice(bytes).ok()?;
        let voucher = match written.voucher {
            Some(voucher) => Some(voucher.read()?),
            None => None,
        };
        let evidence_bytes = written.evidence_bytes;
        // A size that cannot be would use up what all may have.
        let is_usual = written.version == VERSION && evidence_bytes <= MAX_EVIDENCE_BYTES_OF_ONE;
        let (since, at) = (UnixTime::from_seconds(written.since), UnixTime::from_seconds(written.at));
        let (evidence, turn) = (written.evidence.parse().ok()?, written.turn.map(Moment::new));
        let is_of_it = is_usual && written.repository == gun.as_str();
        is_of_it.then_some(Self { gun: gun.clone(), evidence, evidence_bytes, since, at, turn, voucher })
    }
}

/// As it is written. A field that is not known is refused: what it restricts would be lost.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    repository: String,
    evidence: String,
    evidence_bytes: u64,
    since: i64,
    at: i64,
    turn: Option<u64>,
    voucher: Option<WrittenVoucher>,
}

pub(super) fn read(written_below: &Key, bytes: &[u8]) -> Option<Confirmation> {
    let written: Written = serde_json::from_slice(bytes).ok()?;
    let gun = Gun::for_repository(&written.repository.parse().ok()?);
    // Whoever can write the store could put what is said of one repository in another's place.
    (key(CONFIRMED, &gun).as_ref() == Some(written_below)).then(|| Confirmation::decode(&gun, bytes))?
}
