//! What `countersign inspect` prints, piece by piece as it comes: a repository may have tens of thousands of tags.

use std::io::{self, Write};

use super::root::{named, root_keys_text, root_text};
use super::{Table, ago, and_more, certificate_warning, end, or_dash, role_warning};
use crate::admin::v1::{self, inspect_response::Part};

/// The column of tags is no wider: a tag has at most 128 characters, and other names in a list are longer only to annoy.
const MOST_TAG_WIDTH: usize = 128;
/// `sha256:` and 64 digits.
const DIGEST_WIDTH: usize = 71;
/// `targets/releases`.
const RELEASED_BY_WIDTH: usize = 16;

/// What was seen of a repository, for the exit status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// It is pinned.
    pub is_pinned: bool,
    /// Something is wrong with it.
    pub is_refused: bool,
    /// A server could not be reached, and what is held does not serve.
    pub cannot_tell_now: bool,
}

impl Seen {
    pub(super) fn of(repository: &v1::Repository) -> Self {
        let refusal = repository.refusal.as_ref();
        Self {
            is_pinned: repository.pin.is_some(),
            is_refused: refusal.is_some(),
            cannot_tell_now: refusal.is_some_and(|refusal| refusal.cannot_tell_now),
        }
    }
}

/// Takes the pieces of a repository and writes them.
pub trait Shower {
    /// Takes the next piece.
    ///
    /// # Errors
    /// What the writer says.
    fn take(&mut self, part: Part) -> io::Result<()>;

    /// Writes what is left.
    ///
    /// # Errors
    /// What the writer says.
    fn finish(&mut self) -> io::Result<()>;

    /// What was seen; none as long as not even the first piece came.
    fn seen(&self) -> Option<Seen>;
}

/// Writes for people.
#[derive(Debug)]
pub struct InspectText<W> {
    out: W,
    repository: Option<v1::Repository>,
    roles: Vec<v1::Role>,
    has_tags: bool,
}

impl<W: Write> InspectText<W> {
    /// Writes to `out`.
    pub const fn new(out: W) -> Self {
        Self { out, repository: None, roles: Vec::new(), has_tags: false }
    }

    fn tags(&mut self, tags: &[v1::Tag]) -> io::Result<()> {
        let longest = self.repository.as_ref().map_or(0, |repository| repository.longest_tag);
        let width = usize::try_from(longest).unwrap_or(MOST_TAG_WIDTH).clamp("TAG".len(), MOST_TAG_WIDTH);
        if !self.has_tags {
            self.roles()?;
            let heading = |tag, digest, by, signers| format!("  {tag:width$}  {digest:DIGEST_WIDTH$}  {by:RELEASED_BY_WIDTH$}  {signers}");
            writeln!(self.out, "\nTAGS\n{}", heading("TAG", "DIGEST", "RELEASED BY", "SIGNED BY"))?;
            self.has_tags = true;
        }
        for tag in tags {
            writeln!(self.out, "{}", tag_text(tag, width).trim_end())?;
        }
        Ok(())
    }

    fn roles(&mut self) -> io::Result<()> {
        let Some(repository) = &self.repository else { return Ok(()) };
        if self.roles.is_empty() {
            return Ok(());
        }
        write!(self.out, "{}", roles_text(repository, &self.roles))?;
        write!(self.out, "{}", signers_text(&self.roles, &repository.now))?;
        self.roles.clear();
        Ok(())
    }
}

impl<W: Write> Shower for InspectText<W> {
    fn take(&mut self, part: Part) -> io::Result<()> {
        match part {
            Part::Repository(repository) => {
                write!(self.out, "{}", repository_text(&repository))?;
                self.repository = Some(repository);
            }
            Part::Role(role) => self.roles.push(role),
            Part::Tags(tags) => self.tags(&tags.tags)?,
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.roles()?;
        let has_data = self.repository.as_ref().is_some_and(|repository| repository.trust_data.is_some());
        if has_data && !self.has_tags {
            writeln!(self.out, "\nTAGS\n  none")?;
        }
        self.out.flush()
    }

    fn seen(&self) -> Option<Seen> {
        self.repository.as_ref().map(Seen::of)
    }
}

fn repository_text(repository: &v1::Repository) -> String {
    let mut text = format!("{}\n", repository.repository);
    if repository.pin.is_none() && repository.root.is_some() {
        text.push_str("  NOT PINNED: shown as the server gives it. Nothing of it is trusted, and nothing was stored.\n");
        text.push_str(&format!("  `countersign pin {}` shows what could be pinned.\n", repository.repository));
    }
    let mut lines = Table::of_labels();
    if let Some(refusal) = &repository.refusal {
        let verdict = if refusal.cannot_tell_now { "CANNOT TELL NOW" } else { "REFUSED" };
        lines.label(verdict, format!("{} ({})", refusal.message, refusal.code));
    }
    lines.label("trust server", &repository.server);
    lines.label("pinned by", repository.pin.as_ref().map(named).unwrap_or_default());
    if let Some(data) = &repository.trust_data {
        lines.label("trust data", data_text(repository, data));
        lines.label("valid until", end(&data.valid_until, &repository.now));
    }
    lines.label("root", repository.root.as_ref().map(|root| root_text(root, &repository.now)).unwrap_or_default());
    text.push_str(&lines.to_string());
    if let Some(root) = &repository.root {
        text.push_str("\nROOT KEYS");
        text.push_str(&root_keys_text(&with_pinned(root, repository.pin.is_some()), &repository.now));
    }
    text
}

/// Says of each key of a pinned repository whether the pin names it.
fn with_pinned(root: &v1::Root, is_pinned: bool) -> v1::Root {
    let mut root = root.clone();
    for key in root.keys.iter_mut().filter(|key| is_pinned && !key.is_pinned && key.fault.is_empty()) {
        key.fault = "the pin does not name it: it does not count".to_owned();
    }
    root
}

fn data_text(repository: &v1::Repository, data: &v1::TrustData) -> String {
    let source = if repository.pin.is_none() {
        "as the server gives it now".to_owned()
    } else if data.from_held_evidence {
        let age = ago(&data.found_good_at, &repository.now);
        format!("held by this node, last found good at {} ({age}); not confirmed by the trust server", data.found_good_at)
    } else {
        "up to date with the trust server".to_owned()
    };
    match (data.ignores_expiry, repository.refusal.is_some()) {
        (true, true) => format!("{source}; EXPIRED, and shown as if it had not"),
        (true, false) => format!("{source}; EXPIRED, and serves all the same (allow-expired-cached-trust-data)"),
        (false, _) => source,
    }
}

fn roles_text(repository: &v1::Repository, roles: &[v1::Role]) -> String {
    let mut table = Table::new(["ROLE", "VERSION", "EXPIRES", "SIGNED", "TAGS", "SPEAKS OF", "STATE"]);
    for role in roles {
        let signed = role.keys.iter().filter(|key| key.standing() == v1::Standing::Counts).count();
        let is_published = role.version > 0;
        let version = if is_published { role.version.to_string() } else { "-".to_owned() };
        let signed = if is_published { format!("{signed}, needs {}", role.threshold) } else { format!("-, needs {}", role.threshold) };
        let tags = if is_published && role.name.starts_with("targets") { role.tags.to_string() } else { "-".to_owned() };
        table.row([
            role.name.clone(),
            version,
            end(&role.expires, &repository.now),
            signed,
            tags,
            paths_text(role),
            state_text(role, &repository.now),
        ]);
    }
    let more = repository.roles.saturating_sub(roles.len() as u64);
    let more = and_more(more).map(|more| format!("  {more}\n")).unwrap_or_default();
    format!("\nROLES\n{table}{more}")
}

fn paths_text(role: &v1::Role) -> String {
    match role.paths.as_slice() {
        _ if !role.name.starts_with("targets/") => "-".to_owned(),
        [] => "nothing".to_owned(),
        paths if paths.iter().any(String::is_empty) => "all tags".to_owned(),
        paths => paths.iter().map(|path| format!("{path}*")).collect::<Vec<_>>().join(" "),
    }
}

fn state_text(role: &v1::Role, now: &str) -> String {
    if !role.fault.is_empty() {
        return format!("COUNTS FOR NOTHING: {}", role.fault);
    }
    if role.version == 0 {
        return "nothing published".to_owned();
    }
    role_warning(&role.name, &role.expires, now).unwrap_or_default().to_owned()
}

/// Who may sign in delegations, one line for each key.
fn signers_text(roles: &[v1::Role], now: &str) -> String {
    let mut table = Table::new(["ROLE", "USER", "TEAMS", "KEY", "CERTIFICATE ENDS", "SIGNATURE", "REMARK"]);
    for role in roles.iter().filter(|role| role.name.starts_with("targets/")) {
        for key in &role.keys {
            let teams = or_dash(&key.teams.join(" "));
            let ends = end(&key.not_after, now);
            let (id, signature) = (or_dash(&key.key), standing_text(key.standing()).to_owned());
            table.row([role.name.clone(), or_dash(&key.signer), teams, id, ends, signature, remark(key, now)]);
        }
        if let Some(more) = and_more(role.more_keys) {
            table.row([role.name.clone(), more, "-".into(), "-".into(), "-".into(), "-".into(), String::new()]);
        }
    }
    if table.is_empty() { "\nSIGNERS\n  none: only the repository's own key signs\n".to_owned() } else { format!("\nSIGNERS\n{table}") }
}

fn remark(key: &v1::Key, now: &str) -> String {
    let mut remarks: Vec<String> = Vec::new();
    remarks.extend(key.is_revoked.then(|| "REVOKED".to_owned()));
    remarks.extend((!key.fault.is_empty()).then(|| format!("unusable: {}", key.fault)));
    remarks.extend(certificate_warning(&key.not_after, now).map(str::to_owned));
    remarks.join("; ")
}

pub(super) const fn standing_text(standing: v1::Standing) -> &'static str {
    match standing {
        v1::Standing::Counts => "counts",
        v1::Standing::Revoked => "does not count: revoked",
        v1::Standing::CertificateEnded => "does not count: certificate not valid",
        v1::Standing::NotSigned => "none",
        v1::Standing::Unspecified => "-",
    }
}

fn tag_text(tag: &v1::Tag, width: usize) -> String {
    let name = &tag.tag;
    if tag.digest.is_empty() {
        return format!("  {name:width$}  {:DIGEST_WIDTH$}  {:RELEASED_BY_WIDTH$}  {}", "-", "-", unreleased_text(tag));
    }
    let mut signers = signers_of(tag);
    if !tag.fault.is_empty() {
        signers = format!("{signers}; {}", tag.fault);
    }
    format!("  {name:width$}  {:DIGEST_WIDTH$}  {:RELEASED_BY_WIDTH$}  {signers}", tag.digest, tag.released_by)
}

fn unreleased_text(tag: &v1::Tag) -> String {
    format!("{}; listed in {}", tag.fault, tag.listed_in.join(" "))
}

/// Who has signed in a list of their own: users with their teams, and roles of people that the configuration does not know.
fn signers_of(tag: &v1::Tag) -> String {
    let is_personal = |role: &str| role != "targets" && role != "targets/releases" && !role.starts_with("targets/releases/");
    let personal = tag.signed_by.iter().filter(|by| is_personal(&by.role));
    let name = |by: &v1::SignedBy| match (by.signer.as_str(), by.teams.as_slice()) {
        ("", _) => format!("{} (unknown key)", by.role),
        (signer, []) => signer.to_owned(),
        (signer, teams) => format!("{signer} ({})", teams.join(" ")),
    };
    let mut names: Vec<String> = personal.map(name).collect();
    names.sort_unstable();
    names.dedup();
    names.extend(and_more(tag.more_signed_by));
    or_dash(&names.join(", "))
}
