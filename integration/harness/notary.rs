//! A real notary-server with its notary-signer, on loopback with TLS, its data in memory.

use serde_json::{Value, json};

use super::Must;
use super::folder::Folder;
use super::process::{Launch, Port, Ready, Server, text};
use super::signer::Signer;
use super::tls::{Ca, ServerCertificate};
use super::token::{Login, TokenServer};

/// How the notary server is to be started.
#[derive(Debug, Clone, Copy, Default)]
pub struct NotaryOptions {
    /// Callers need a token of the world's token server.
    pub token_auth: bool,
    /// notary-server signs by itself with Ed25519 keys; otherwise notary-signer does with ECDSA keys.
    pub local_keys: bool,
}

/// A running notary server.
#[derive(Debug)]
pub struct Notary {
    /// notary-server. Its trust data are gone when it is started again: the Debian build has no database that needs no server.
    pub server: Server,
    /// notary-signer, unless the server signs by itself.
    pub signing: Option<Server>,
    port: Port,
    folder: std::path::PathBuf,
    ca: std::path::PathBuf,
    options: NotaryOptions,
    _signing_port: Port,
}

impl Notary {
    /// Starts the servers. `tokens` is needed for token authentication only.
    pub async fn start(folder: &Folder, ca: &Ca, options: NotaryOptions, tokens: Option<&TokenServer>) -> Self {
        let (port, signing_port) = (Port::free(), Port::free());
        let files = ca.server("notary-server");
        let ca_file = text(&ca.file());
        let signing = if options.local_keys { None } else { Some(start_signer(folder, ca, &signing_port).await) };
        let mut configuration = json!({
            "server": {"http_addr": address(&port), "tls_cert_file": text(&files.certificate), "tls_key_file": text(&files.key)},
            "trust_service": if options.local_keys { json!({"type": "local"}) } else { remote(&signing_port, &ca_file, &files) },
            "logging": {"level": "debug"},
            "storage": {"backend": "memory"},
        });
        if options.token_auth {
            configuration["auth"] = token_auth(tokens.must("starting notary-server with token authentication: which token server"));
        }
        let file = folder.configuration("notary-server.json", &configuration.to_string());
        let launch = Launch::new("notary-server", "notary-server").arg("-config").path(&file).arg("-logf").arg("logfmt");
        let server = launch.start(&folder.logs(), Ready::Port(port.number())).await;
        Self { server, signing, port, folder: folder.sub("signers"), ca: ca.file(), options, _signing_port: signing_port }
    }

    /// `https://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("https://{}", address(&self.port))
    }

    /// A person who signs, with a trust folder of their own. The same name gives the same folder.
    /// With token authentication the person logs in as the first of the known users.
    pub fn signer(&self, name: &str) -> Signer {
        let login = self.options.token_auth.then(|| super::registry::Registry::logins()[0]);
        self.signer_with(name, login)
    }

    /// A person who signs, with the given login or none.
    pub fn signer_with(&self, name: &str, login: Option<Login>) -> Signer {
        Signer::new(self.folder.join(name), name, &self.url(), &self.ca, login)
    }

    /// The requests it has answered, as `METHOD path`, oldest first.
    pub fn requests(&self) -> Vec<String> {
        self.server.log().lines().filter_map(request_in_log).collect()
    }
}

async fn start_signer(folder: &Folder, ca: &Ca, port: &Port) -> Server {
    let files = ca.server("notary-signer");
    let configuration = json!({
        "server": {
            "grpc_addr": address(port), "tls_cert_file": text(&files.certificate), "tls_key_file": text(&files.key),
            "client_ca_file": text(&ca.file()),
        },
        "logging": {"level": "debug"},
        "storage": {"backend": "memory"},
    });
    let file = folder.configuration("notary-signer.json", &configuration.to_string());
    let launch = Launch::new("notary-signer", "notary-signer").arg("-config").path(&file).arg("-logf").arg("logfmt");
    launch.start(&folder.logs(), Ready::Port(port.number())).await
}

fn remote(port: &Port, ca: &str, files: &ServerCertificate) -> Value {
    json!({
        "type": "remote", "hostname": "localhost", "port": port.number().to_string(), "key_algorithm": "ecdsa",
        "tls_ca_file": ca, "tls_client_cert": text(&files.certificate), "tls_client_key": text(&files.key),
    })
}

fn token_auth(tokens: &TokenServer) -> Value {
    json!({"type": "token", "options": {
        "realm": tokens.url(), "service": tokens.service(), "issuer": tokens.issuer(), "rootcertbundle": text(&tokens.certificate()),
    }})
}

fn address(port: &Port) -> String {
    format!("127.0.0.1:{}", port.number())
}

/// notary-server writes a line of JSON for each answered request, between others that are no JSON.
fn request_in_log(line: &str) -> Option<String> {
    let entry: Value = serde_json::from_str(line).ok()?;
    let answered = entry["msg"] == "response completed";
    let request = (entry["http.request.method"].as_str()?, entry["http.request.uri"].as_str()?);
    answered.then(|| format!("{} {}", request.0, request.1))
}
