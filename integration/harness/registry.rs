//! A real registry (docker-registry) and the pushes to it.

use std::fs;
use std::path::{Path, PathBuf};

use reqwest::{Method, RequestBuilder, Response, StatusCode, header};

use super::folder::Folder;
use super::image::{Blob, Image};
use super::process::{Launch, Port, Ready, Server, text};
use super::tls::{Ca, ServerCertificate};
use super::token::{Login, TokenServer};
use super::{Must, tls};

/// A user of a registry with basic authentication, and the bcrypt hash of the password: docker-registry takes no other kind.
const BASIC_USERS: [(Login, &str); 2] = [
    (Login { user: "puller", password: "pull-secret-1" }, "$2b$04$abcdefghijklmnopqrstuudiijLFBCg.hdFmU9RvYIMJKaz87WdeS"),
    (Login { user: "other", password: "pull-secret-2" }, "$2b$04$abcdefghijklmnopqrstuuM42ztFnKkYJzaGflEqCa/HkU36Tz.qO"),
];

/// Who may use the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RegistryAuth {
    /// Everybody.
    #[default]
    Open,
    /// The two users of [`Registry::logins`], by name and password.
    Basic,
    /// Whoever has a token of the world's token server.
    Token,
}

/// How the registry is to be started.
#[derive(Debug, Clone, Copy, Default)]
pub struct RegistryOptions {
    /// https with the world's CA; plain http otherwise, which containerd uses for 127.0.0.1 by itself.
    pub tls: bool,
    /// Who may use it.
    pub auth: RegistryAuth,
}

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    /// The process.
    pub server: Server,
    options: RegistryOptions,
    port: Port,
    client: reqwest::Client,
    tokens: Option<(String, reqwest::Client)>,
}

impl Registry {
    /// Starts a registry that keeps its data in the test's folder. `tokens` is needed for [`RegistryAuth::Token`] only.
    pub async fn start(folder: &Folder, ca: &Ca, options: RegistryOptions, tokens: Option<&TokenServer>) -> Self {
        let port = Port::free();
        let certificate = options.tls.then(|| ca.server("registry"));
        let configuration = configuration(folder, &port, certificate.as_ref(), &auth_section(folder, options.auth, tokens));
        let file = folder.configuration("registry.yml", &configuration);
        let launch = Launch::new("registry", "docker-registry").arg("serve").path(&file);
        let server = launch.start(&folder.logs(), Ready::Port(port.number())).await;
        let tokens = tokens.map(|tokens| (tokens.url(), ca.client()));
        Self { server, options, port, client: ca.client(), tokens }
    }

    /// `127.0.0.1:<port>`: the first part of image names.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// How it was started.
    pub const fn options(&self) -> RegistryOptions {
        self.options
    }

    /// The two users that exist with [`RegistryAuth::Basic`] and at the token server.
    pub fn logins() -> [Login; 2] {
        BASIC_USERS.map(|(login, _)| login)
    }

    /// Pushes an image and returns its name, `127.0.0.1:<port>/<repository>:<tag>`.
    pub async fn push(&self, image: &Image, repository: &str, tag: &str) -> String {
        for blob in image.blobs() {
            self.push_blob(blob, repository).await;
        }
        for manifest in image.manifests() {
            self.push_manifest(manifest, repository, &manifest.digest().to_string()).await;
        }
        self.push_manifest(image.top(), repository, tag).await;
        format!("{}/{repository}:{tag}", self.host())
    }

    /// Pushes one manifest under a tag or its digest.
    pub async fn push_manifest(&self, manifest: &Blob, repository: &str, selector: &str) {
        let request = self.request(Method::PUT, repository, &format!("/manifests/{selector}")).await;
        let request = request.header(header::CONTENT_TYPE, &manifest.media_type).body(manifest.bytes.clone());
        expect(request, StatusCode::CREATED, "pushing a manifest").await;
    }

    /// Deletes a manifest, and so all tags that point to it.
    pub async fn delete_manifest(&self, repository: &str, digest: &str) {
        let request = self.request(Method::DELETE, repository, &format!("/manifests/{digest}")).await;
        expect(request, StatusCode::ACCEPTED, "deleting a manifest").await;
    }

    /// The requests it has answered, as `METHOD path`, oldest first.
    pub fn requests(&self) -> Vec<String> {
        self.server.log().lines().filter_map(request_in_access_log).collect()
    }

    async fn push_blob(&self, blob: &Blob, repository: &str) {
        let head = self.request(Method::HEAD, repository, &format!("/blobs/{}", blob.digest())).await;
        if head.send().await.must("asking for a blob").status() == StatusCode::OK {
            return;
        }
        let request = self.request(Method::POST, repository, "/blobs/uploads/").await;
        let upload = expect(request, StatusCode::ACCEPTED, "beginning an upload").await;
        let location = upload.headers().get(header::LOCATION).and_then(|value| value.to_str().ok()).must("reading the upload's location");
        let mut url = reqwest::Url::parse(location).must("reading the upload's location");
        url.query_pairs_mut().append_pair("digest", &blob.digest().to_string());
        let request = self.client.put(url).header(header::CONTENT_TYPE, "application/octet-stream").body(blob.bytes.clone());
        expect(self.authorized(request, repository).await, StatusCode::CREATED, "uploading a blob").await;
    }

    async fn request(&self, method: Method, repository: &str, path: &str) -> RequestBuilder {
        let scheme = if self.options.tls { "https" } else { "http" };
        let request = self.client.request(method, format!("{scheme}://{}/v2/{repository}{path}", self.host()));
        self.authorized(request, repository).await
    }

    async fn authorized(&self, request: RequestBuilder, repository: &str) -> RequestBuilder {
        let [login, _] = Self::logins();
        match (self.options.auth, &self.tokens) {
            (RegistryAuth::Open, _) | (RegistryAuth::Token, None) => request,
            (RegistryAuth::Basic, _) => request.basic_auth(login.user, Some(login.password)),
            (RegistryAuth::Token, Some((url, client))) => {
                let scope = format!("repository:{repository}:pull,push,delete");
                request.bearer_auth(super::token::fetch(client, url, &login, &scope).await)
            }
        }
    }
}

async fn expect(request: RequestBuilder, status: StatusCode, doing: &str) -> Response {
    let response = request.send().await.must(doing);
    let found = response.status();
    if found == status {
        return response;
    }
    panic!("{doing}: the registry answered {found}: {}", response.text().await.unwrap_or_default());
}

/// A line of the access log in Apache's format: `127.0.0.1 - - [date] "GET /v2/ HTTP/1.1" 200 ...`.
fn request_in_access_log(line: &str) -> Option<String> {
    let request = line.strip_prefix("127.0.0.1 - ")?.split('"').nth(1)?;
    request.strip_suffix(" HTTP/1.1").or_else(|| request.strip_suffix(" HTTP/2.0")).map(str::to_owned)
}

fn configuration(folder: &Folder, port: &Port, certificate: Option<&ServerCertificate>, auth: &str) -> String {
    let data = text(&folder.sub("registry"));
    let tls = certificate
        .map_or_else(String::new, |files| format!("\n  tls: {{certificate: '{}', key: '{}'}}", text(&files.certificate), text(&files.key)));
    format!(
        "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: '{data}'}}\n  delete: {{enabled: true}}\n\
         http:\n  addr: 127.0.0.1:{}{tls}\n{auth}",
        port.number()
    )
}

fn auth_section(folder: &Folder, auth: RegistryAuth, tokens: Option<&TokenServer>) -> String {
    match auth {
        RegistryAuth::Open => String::new(),
        RegistryAuth::Basic => format!("auth: {{htpasswd: {{realm: countersign tests, path: '{}'}}}}\n", text(&htpasswd(folder))),
        RegistryAuth::Token => {
            let tokens = tokens.must("starting a registry with token authentication: which token server");
            let (url, service, issuer, bundle) = (tokens.url(), tokens.service(), tokens.issuer(), text(&tokens.certificate()));
            format!("auth: {{token: {{realm: '{url}', service: {service}, issuer: {issuer}, rootcertbundle: '{bundle}'}}}}\n")
        }
    }
}

fn htpasswd(folder: &Folder) -> PathBuf {
    let lines: String = BASIC_USERS.iter().map(|(login, hash)| format!("{}:{hash}\n", login.user)).collect();
    let file = folder.sub("registry-auth").join("htpasswd");
    fs::write(&file, lines).must("writing the registry's users");
    file
}

/// `certs.d` of containerd: needed for a registry with TLS, since containerd takes 127.0.0.1 for plain http otherwise.
pub fn write_hosts_toml(certs_d: &Path, registry: &Registry, ca: &tls::Ca) {
    if !registry.options.tls {
        return;
    }
    let folder = certs_d.join(registry.host());
    fs::create_dir_all(&folder).must("making a folder for hosts.toml");
    let server = format!("https://{}", registry.host());
    let content =
        format!("server = \"{server}\"\n[host.\"{server}\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = \"{}\"\n", text(&ca.file()));
    fs::write(folder.join("hosts.toml"), content).must("writing hosts.toml");
}
