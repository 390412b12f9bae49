//! People who sign, with the real `notary` client.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_trust::name::Sha256;
use serde_json::{Value, json};
use tokio::process::Command;

use super::Must;
use super::image::{Blob, Image};
use super::process::{lossy, run, text};
use super::tls::{ServerCertificate, personal, personal_until, renewed};
use super::token::Login;

/// The passphrases of all keys; the client demands at least eight characters.
const PASSPHRASE: &str = "countersign tests";
const PASSPHRASE_VARIABLES: [&str; 4] =
    ["NOTARY_ROOT_PASSPHRASE", "NOTARY_TARGETS_PASSPHRASE", "NOTARY_SNAPSHOT_PASSPHRASE", "NOTARY_DELEGATION_PASSPHRASE"];

/// What a root can be pinned by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootIds {
    /// For `cert-ids`: the key ID under which the root's certificate stands in the root role.
    pub certificate: String,
    /// For `root-keys`: the ID of the bare public key.
    pub canonical: String,
}

/// A key that `notary key rotate` can replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// The root key; the old one signs the new root once more.
    Root,
    /// The targets key.
    Targets,
    /// The snapshot key, kept by the person.
    Snapshot,
    /// The snapshot key, given to the server.
    SnapshotToServer,
    /// The timestamp key, which the server always keeps.
    Timestamp,
}

/// One person who signs, with a trust folder of their own.
#[derive(Debug, Clone)]
pub struct Signer {
    name: String,
    folder: PathBuf,
    server: String,
    ca: PathBuf,
    login: Option<Login>,
}

impl Signer {
    /// A person who keeps their keys in `folder` and talks to the notary server at `server`.
    pub fn new(folder: PathBuf, name: &str, server: &str, ca: &Path, login: Option<Login>) -> Self {
        fs::create_dir_all(&folder).must("making a trust folder");
        Self { name: name.to_owned(), folder, server: server.to_owned(), ca: ca.to_owned(), login }
    }

    /// Makes a repository of trust data and publishes it. Returns what its root can be pinned by.
    pub async fn init(&self, gun: &str) -> RootIds {
        self.well(&["init", gun]).await;
        self.publish(gun).await;
        self.root_ids(gun).await
    }

    /// Signs an image for a tag with the targets key, and publishes.
    pub async fn sign(&self, gun: &str, tag: &str, image: &Image) {
        self.sign_as(gun, tag, image.top(), &[]).await;
    }

    /// Signs content for a tag in the given roles (`targets/releases`; none: `targets`), and publishes.
    pub async fn sign_as(&self, gun: &str, tag: &str, content: &Blob, roles: &[&str]) {
        self.add_hash(gun, tag, content.bytes.len(), content.digest().hash(), roles).await;
        self.publish(gun).await;
    }

    /// Prepares an entry for a tag with any size and hash; [`Signer::publish`] makes it known.
    pub async fn add_hash(&self, gun: &str, tag: &str, size: usize, hash: &Sha256, roles: &[&str]) {
        let (size, hash, roles) = (size.to_string(), hash.to_hex(), roles.join(","));
        let mut args = vec!["addhash", gun, tag, &size, "--sha256", &hash];
        if !roles.is_empty() {
            args.extend(["--roles", &roles]);
        }
        self.well(&args).await;
    }

    /// Publishes what was prepared.
    pub async fn publish(&self, gun: &str) {
        self.well(&["publish", gun]).await;
    }

    /// Takes a tag's signature away, and publishes.
    pub async fn remove_tag(&self, gun: &str, tag: &str) {
        self.well(&["remove", gun, tag]).await;
        self.publish(gun).await;
    }

    /// Deletes all trust data of the repository on the server.
    pub async fn delete(&self, gun: &str) {
        self.well(&["delete", gun, "--remote"]).await;
    }

    /// This person's certificate and key for delegations; made at the first call.
    pub fn certificate(&self) -> ServerCertificate {
        let certificate = self.folder.join(format!("{}.crt", self.name));
        if certificate.exists() {
            return ServerCertificate { key: certificate.with_extension("key"), certificate };
        }
        personal(&self.folder, &self.name)
    }

    /// The same, with a certificate that ends when the given day (year, month, day) begins; before [`Signer::certificate`].
    pub fn certificate_until(&self, end: (i32, u8, u8)) -> ServerCertificate {
        personal_until(&self.folder, &self.name, end)
    }

    /// Another certificate over the same key, as a renewed client bundle has it.
    pub fn renewed_certificate(&self) -> PathBuf {
        renewed(&self.certificate(), &self.name)
    }

    /// The canonical ID of this person's key.
    pub async fn key_id(&self) -> String {
        let file = self.certificate().certificate;
        self.canonical_id(&fs::read(&file).must(format_args!("reading {}", file.display()))).await
    }

    /// Lets `people` sign in `role` (`targets/releases`, `targets/alice`), for all names, and publishes.
    pub async fn delegate(&self, gun: &str, role: &str, people: &[&Self]) {
        let certificates: Vec<String> = people.iter().map(|person| text(&person.certificate().certificate)).collect();
        let mut args = vec!["delegation", "add", gun, role, "--all-paths"];
        args.extend(certificates.iter().map(String::as_str));
        self.well(&args).await;
        self.publish(gun).await;
    }

    /// Takes a delegation away, with all its keys, and publishes.
    pub async fn undelegate(&self, gun: &str, role: &str) {
        self.well(&["delegation", "remove", gun, role, "-y"]).await;
        self.publish(gun).await;
    }

    /// Takes this person's own key into their trust folder: needed once before signing in a delegation.
    pub async fn import_own_key(&self) {
        self.import_key(&self.certificate().key, &self.name).await;
    }

    /// Takes another person's key into this person's trust folder.
    pub async fn import_key(&self, key: &Path, role: &str) {
        self.well(&["key", "import", &text(key), "--role", role]).await;
    }

    /// Signs the same content again in a role whose keys changed, and publishes.
    pub async fn witness(&self, gun: &str, role: &str) {
        self.well(&["witness", gun, role]).await;
        self.publish(gun).await;
    }

    /// Replaces a key. The client publishes by itself.
    pub async fn rotate(&self, gun: &str, key: Rotation) {
        let role: &[&str] = match key {
            Rotation::Root => &["root"],
            Rotation::Targets => &["targets"],
            Rotation::Snapshot => &["snapshot"],
            Rotation::SnapshotToServer => &["snapshot", "-r"],
            Rotation::Timestamp => &["timestamp", "-r"],
        };
        // The client asks before it rotates the root key; it takes the answer from its standard input only.
        let words = [&["key", "rotate", gun], role].concat();
        let mut answered = Command::new("sh");
        answered.args(["-c", r#"echo yes | "$@""#, "sh"]).arg("notary").args(self.options()).args(&words);
        let output = self.run(answered).await;
        assert!(output.status.success(), "notary {words:?} failed: {}{}", lossy(&output.stdout), lossy(&output.stderr));
    }

    /// Asks the server, as the reference client does, which hash is signed for a tag.
    ///
    /// # Errors
    /// What the client printed when it found or trusted nothing.
    pub async fn lookup(&self, gun: &str, tag: &str) -> Result<String, String> {
        let mut command = Command::new("notary");
        command.args(self.options()).args(["lookup", gun, tag]);
        let output = self.run(command).await;
        let printed = lossy(&output.stdout);
        // One line: name, `sha256:<hex>`, size.
        let hash = printed.split_whitespace().find(|word| word.starts_with("sha256:"));
        hash.filter(|_| output.status.success()).map(str::to_owned).ok_or_else(|| format!("{printed}{}", lossy(&output.stderr)))
    }

    /// The command `notary lookup` as it would be typed: to be timed, or run with a fresh trust folder.
    pub fn lookup_command(&self, gun: &str, tag: &str) -> Vec<String> {
        let words = ["lookup".to_owned(), gun.to_owned(), tag.to_owned()];
        std::iter::once("notary".to_owned()).chain(self.options()).chain(words).collect()
    }

    /// What the root on the server can be pinned by.
    pub async fn root_ids(&self, gun: &str) -> RootIds {
        let root = self.newest_root(gun).await;
        let certificate = root["signed"]["roles"]["root"]["keyids"][0].as_str().must("finding the root's key ID").to_owned();
        let pem = root["signed"]["keys"][&certificate]["keyval"]["public"].as_str().must("finding the root's certificate");
        let pem = STANDARD.decode(pem).must("decoding the root's certificate");
        RootIds { canonical: self.canonical_id(&pem).await, certificate }
    }

    /// The canonical ID of the repository's own key, which signs `targets`. It comes bare, so that its key ID is that.
    pub async fn targets_key_id(&self, gun: &str) -> String {
        let root = self.newest_root(gun).await;
        root["signed"]["roles"]["targets"]["keyids"][0].as_str().must("finding the targets key's ID").to_owned()
    }

    async fn newest_root(&self, gun: &str) -> Value {
        // After a rotation the client's own copy is the old root until it asks the server again.
        self.well(&["list", gun]).await;
        let file = self.folder.join("tuf").join(gun).join("metadata/root.json");
        let content = fs::read(&file).must(format_args!("reading {}", file.display()));
        serde_json::from_slice(&content).must("reading a root")
    }

    /// The canonical ID by an implementation that is not ours: openssl takes the public key out of the certificate.
    async fn canonical_id(&self, certificate: &[u8]) -> String {
        let file = self.folder.join("root-certificate.pem");
        fs::write(&file, certificate).must("writing the root's certificate");
        let mut openssl = Command::new("openssl");
        openssl.args(["x509", "-noout", "-pubkey", "-in"]).arg(&file);
        let pem = super::process::run_well(openssl).await;
        let public: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        // notary hashes this text: canonical JSON, the members in alphabetical order.
        Sha256::of(json!({"keytype": "ecdsa", "keyval": {"private": null, "public": public}}).to_string().as_bytes()).to_hex()
    }

    fn options(&self) -> Vec<String> {
        ["-s", &self.server, "--tlscacert", &text(&self.ca), "-d", &text(&self.folder)].map(str::to_owned).to_vec()
    }

    async fn well(&self, args: &[&str]) {
        let mut command = Command::new("notary");
        command.args(self.options()).args(args);
        let output = self.run(command).await;
        assert!(output.status.success(), "notary {args:?} failed: {}{}", lossy(&output.stdout), lossy(&output.stderr));
    }

    async fn run(&self, mut command: Command) -> Output {
        // HOME keeps a configuration of the person at this machine out.
        command.env("HOME", &self.folder).envs(PASSPHRASE_VARIABLES.map(|name| (name, PASSPHRASE)));
        if let Some(login) = self.login {
            command.env("NOTARY_AUTH", STANDARD.encode(format!("{}:{}", login.user, login.password)));
        }
        run(command).await
    }
}
