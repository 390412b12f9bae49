//! This node's own credentials: files and helpers that serve, that do not, and that mean harm.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::fetch::helper::Helpers;
use crate::fetch::limits::{CREDENTIALS_FILE_BYTES, HELPERS_AT_ONCE};
use crate::fetch::{FileFault, HelperFault, NodeCredentialError, NodeCredentials};

/// Long enough for a shell on a busy machine.
const ENOUGH: Duration = Duration::from_secs(20);
/// Short enough to be waited for.
const SHORT: Duration = Duration::from_secs(2);
const ANSWER: &str = r#"echo '{"ServerURL":"registry.test:5000","Username":"alice","Secret":"hunter2"}'"#;

/// A node with a credentials file and helpers of its own.
struct TestNode {
    folder: tempfile::TempDir,
    credentials: Arc<NodeCredentials>,
}

impl TestNode {
    fn with_deadline(file: &str, deadline: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut path = OsString::from(folder.path());
        path.push(":/usr/bin:/bin");
        let environment = vec![("PATH", path), ("HOME", OsString::from("/nowhere"))];
        let config = folder.path().join("config.json");
        let credentials = Arc::new(NodeCredentials::with_helpers(config, Helpers::with(environment, deadline)));
        let node = Self { folder, credentials };
        node.write(file);
        node
    }

    fn new(file: &str) -> Self {
        Self::with_deadline(file, ENOUGH)
    }

    /// A node whose file names the helper `docker-credential-test`, which is this shell script.
    fn with_helper(script: &str, deadline: Duration) -> Self {
        let node = Self::with_deadline(r#"{"credsStore":"test"}"#, deadline);
        write_program(&node.path("docker-credential-test"), script);
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, content: impl AsRef<[u8]>) {
        fs::write(self.path("config.json"), content).unwrap();
    }

    async fn ask(&self) -> Result<Option<Credential>, NodeCredentialError> {
        self.credentials.of(&"registry.test:5000/team/app".parse().unwrap()).await
    }

    async fn file_fault(&self) -> FileFault {
        match self.ask().await.unwrap_err() {
            NodeCredentialError::File { file, fault } if file == self.path("config.json").to_str().unwrap() => fault,
            other => panic!("{other:?}"),
        }
    }

    async fn helper_fault(&self) -> HelperFault {
        match self.ask().await.unwrap_err() {
            NodeCredentialError::Helper { program, fault, .. } if program == "docker-credential-test" => fault,
            other => panic!("{other:?}"),
        }
    }
}

/// Written by another process: a file that this one has open for writing could be handed to a helper that is started
/// meanwhile, and could not be run then.
fn write_program(path: &Path, script: &str) {
    let mut shell = Command::new("/bin/sh");
    let writer = shell.args(["-c", "cat >\"$0\" && chmod 0755 \"$0\""]).arg(path).stdin(Stdio::piped()).spawn();
    let mut writer = writer.unwrap();
    std::io::Write::write_all(&mut writer.stdin.take().unwrap(), format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
}

fn fingerprint(answer: Result<Option<Credential>, NodeCredentialError>) -> Sha256 {
    answer.unwrap().unwrap().fingerprint()
}

fn alice() -> Sha256 {
    Credential::password("alice".into(), "hunter2".into()).fingerprint()
}

#[tokio::test]
async fn the_file_is_read_again_when_it_has_changed() {
    let node = TestNode::new(r#"{"auths":{"registry.test:5000":{"username":"alice","password":"hunter2"}}}"#);
    assert_eq!(fingerprint(node.ask().await), alice());
    assert_eq!(fingerprint(node.ask().await), alice());
    // As long as the one before, and in place of it.
    node.write(r#"{"auths":{"registry.test:5000":{"username":"alice","password":"hunter3"}}}"#);
    assert_ne!(fingerprint(node.ask().await), alice());
    fs::write(node.path("new"), r#"{"auths":{}}"#).unwrap();
    fs::rename(node.path("new"), node.path("config.json")).unwrap();
    assert!(node.ask().await.unwrap().is_none());
    fs::remove_file(node.path("config.json")).unwrap();
    assert!(matches!(node.file_fault().await, FileFault::Unreadable { .. }));
    node.write(r#"{"auths":{"https://registry.test:5000/v1/":{"auth":"YWxpY2U6aHVudGVyMg=="}}}"#);
    assert_eq!(fingerprint(node.ask().await), alice());
}

#[tokio::test]
async fn a_login_for_another_registry_is_not_lent() {
    let node = TestNode::new(
        r#"{"auths":{"evil.registry.test:5000":{"username":"a","password":"b"},"registry.test":{"username":"a","password":"b"}}}"#,
    );
    assert!(node.ask().await.unwrap().is_none());
}

#[tokio::test]
async fn what_is_no_credentials_file_is_refused_for_what_it_is() {
    let node = TestNode::new("s3cret");
    assert_eq!(node.file_fault().await, FileFault::NotJson { line: 1, column: 1 });
    let limit = usize::try_from(CREDENTIALS_FILE_BYTES).unwrap();
    node.write(format!("{{}}{}", " ".repeat(limit)));
    assert_eq!(node.file_fault().await, FileFault::TooLong { limit: CREDENTIALS_FILE_BYTES });
    node.write(format!("{{}}{}", " ".repeat(limit - 2)));
    assert!(node.ask().await.unwrap().is_none());
    fs::remove_file(node.path("config.json")).unwrap();
    fs::create_dir(node.path("config.json")).unwrap();
    assert_eq!(node.file_fault().await, FileFault::NotAFile);
    fs::remove_dir(node.path("config.json")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, node.path("config.json"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert_eq!(node.file_fault().await, FileFault::NotAFile);
}

#[tokio::test]
async fn a_helper_is_asked_with_the_registrys_host_and_knows_nothing_else_of_the_daemon() {
    let script = r#"
        set -e
        read -r server || [ -n "$server" ]
        [ "$#" = 1 ] && [ "$1" = get ] && [ "$server" = registry.test:5000 ] && [ "$(pwd)" = / ]
        [ "$(env | grep -Ecv '^(PATH|HOME|PWD|OLDPWD|SHLVL|_)=')" = 0 ] || exit 7
        [ "$HOME" = /nowhere ] || exit 8
        ! ls -l /proc/self/fd | grep -q socket: || exit 9
        echo "thr0wn away" >&2
    "#;
    let node = TestNode::with_helper(&format!("{script}\n{ANSWER}"), ENOUGH);
    assert_eq!(fingerprint(node.ask().await), alice());
}

#[tokio::test]
async fn a_helper_may_answer_without_reading_the_question() {
    let node = TestNode::with_helper(&format!("exec <&-\n{ANSWER}"), ENOUGH);
    assert_eq!(fingerprint(node.ask().await), alice());
}

#[tokio::test]
async fn a_user_named_token_means_an_identity_token() {
    let node = TestNode::with_helper(r#"echo '{"Username":"<token>","Secret":"ident1ty"}'"#, ENOUGH);
    assert_eq!(fingerprint(node.ask().await), Credential::identity_token("ident1ty".into()).fingerprint());
}

#[tokio::test]
async fn a_helper_that_keeps_nothing_leaves_it_to_the_file() {
    let node = TestNode::with_helper("echo credentials not found in native keychain; exit 1", ENOUGH);
    assert!(node.ask().await.unwrap().is_none());
    node.write(r#"{"credsStore":"test","auths":{"registry.test:5000":{"auth":"YWxpY2U6aHVudGVyMg=="}}}"#);
    assert_eq!(fingerprint(node.ask().await), alice());
    let node = TestNode::with_helper("echo '{}'", ENOUGH);
    assert!(node.ask().await.unwrap().is_none());
}

#[tokio::test]
async fn a_helper_that_writes_without_end_is_cut_off() {
    let node = TestNode::with_helper("exec head -c 1073741824 /dev/zero", ENOUGH);
    let began = Instant::now();
    assert!(matches!(node.helper_fault().await, HelperFault::TooLong { limit: 65536 }));
    assert!(began.elapsed() < ENOUGH);
}

#[tokio::test]
async fn a_helper_that_hangs_is_killed_with_all_that_it_started() {
    for script in
        ["sleep 1000 & echo $! >\"$0.child\"; echo $$ >\"$0.pid\"; wait", "sleep 1000 & echo $! >\"$0.child\"; echo $$ >\"$0.pid\""]
    {
        let node = TestNode::with_helper(script, SHORT);
        assert_eq!(node.helper_fault().await, HelperFault::TimedOut { seconds: SHORT.as_secs() });
        for file in ["docker-credential-test.pid", "docker-credential-test.child"] {
            let pid = fs::read_to_string(node.path(file)).unwrap();
            let has_ended = || fs::read_to_string(format!("/proc/{}/stat", pid.trim())).map_or(true, |stat| stat.contains(") Z "));
            let deadline = Instant::now() + ENOUGH;
            while !has_ended() {
                assert!(Instant::now() < deadline, "{file} of `{script}` runs on");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_helper_behind() {
    let node = TestNode::with_helper("echo $$ >\"$0.pid\"; exec sleep 1000", ENOUGH);
    let pid = node.path("docker-credential-test.pid");
    let it_runs = async {
        while fs::read_to_string(&pid).unwrap_or_default().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        answer = node.ask() => panic!("{answer:?}"),
        () = it_runs => {}
    }
    let process = PathBuf::from(format!("/proc/{}", fs::read_to_string(&pid).unwrap().trim()));
    let deadline = Instant::now() + ENOUGH;
    while process.exists() {
        assert!(Instant::now() < deadline, "the helper runs on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn helpers_that_hang_cost_each_caller_one_deadline_and_few_run_at_once() {
    let node = TestNode::with_helper("echo x >>\"$0.runs\"; exec sleep 1000", SHORT * 2);
    let runs = || fs::read_to_string(node.path("docker-credential-test.runs")).unwrap_or_default().lines().count();
    let began = Instant::now();
    let callers = futures_util::future::join_all((0..HELPERS_AT_ONCE * 5).map(|_| node.ask()));
    let look = async {
        tokio::time::sleep(SHORT).await;
        runs()
    };
    let (answers, running) = tokio::join!(callers, look);
    assert!(running <= HELPERS_AT_ONCE, "{running} helpers ran at once");
    for answer in answers {
        assert!(matches!(answer, Err(NodeCredentialError::Helper { fault: HelperFault::TimedOut { .. }, .. })), "{answer:?}");
    }
    assert!(began.elapsed() < SHORT * 8, "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_answer_that_is_no_credential_is_refused_and_not_shown() {
    for (script, why) in [
        ("echo s3cret", "is not the JSON of a credential"),
        ("true", "is not the JSON of a credential"),
        (r#"echo '{"Username":"a","Secret":"s3cret"'"#, "is not the JSON of a credential"),
        (r#"echo '{"Username":["s3cret"]}'"#, "is not the JSON of a credential"),
        (r#"echo '{"Username":"a","Secret":"b"} s3cret'"#, "is not the JSON of a credential"),
        ("printf '\\377\\376\\000'", "is not the JSON of a credential"),
        (r#"echo '{"Secret":"s3cret"}'"#, "has no user"),
        (r#"echo '{"Username":"s3cret"}'"#, "has no secret"),
        (r#"echo '{"ServerURL":"evil.registry.test:5000","Username":"a","Secret":"s3cret"}'"#, "is for another server"),
    ] {
        let node = TestNode::with_helper(script, ENOUGH);
        assert_eq!(node.helper_fault().await, HelperFault::Answer { why }, "{script}");
        assert!(!node.ask().await.unwrap_err().to_string().contains("s3cret"));
    }
}

#[tokio::test]
async fn a_helper_that_fails_is_told_with_how_it_ended_alone() {
    let node = TestNode::with_helper("echo 's3cret was wrong'; exit 3", ENOUGH);
    assert_eq!(node.helper_fault().await, HelperFault::Failed { status: "exit status: 3".into() });
    let node = TestNode::with_helper("kill -9 $$", ENOUGH);
    assert_eq!(node.helper_fault().await, HelperFault::Failed { status: "signal: 9 (SIGKILL)".into() });
    // The words for "none" count only from a helper that has failed.
    let node = TestNode::with_helper("echo credentials not found in native keychain", ENOUGH);
    assert_eq!(node.helper_fault().await, HelperFault::Answer { why: "is not the JSON of a credential" });
}

#[tokio::test]
async fn a_helper_that_is_no_program_is_told() {
    let node = TestNode::new(r#"{"credsStore":"test"}"#);
    assert_eq!(node.helper_fault().await, HelperFault::Absent);
    fs::write(node.path("docker-credential-test"), "#!/bin/sh\n").unwrap();
    assert_eq!(node.helper_fault().await, HelperFault::Absent, "a file that nobody may execute");
    fs::write(node.path("docker-credential-test"), "\x7fELF, but cut").unwrap();
    fs::set_permissions(node.path("docker-credential-test"), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(node.helper_fault().await, HelperFault::NotStarted { .. }));
}

#[tokio::test]
async fn a_name_that_leads_out_of_path_is_not_run() {
    let node = TestNode::new(r#"{"credHelpers":{"registry.test:5000":"/../../evil"}}"#);
    fs::create_dir(node.path("docker-credential-")).unwrap();
    write_program(&node.path("evil"), "touch \"$0.ran\"");
    assert_eq!(node.file_fault().await, FileFault::HelperName { name: "/../../evil".into() });
    assert!(!node.path("evil.ran").exists());
}

#[tokio::test]
async fn relative_folders_of_path_are_not_searched() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), r#"{"credsStore":"test"}"#).unwrap();
    for path in ["", ".", "bin:", "target"] {
        let helpers = Helpers::with(vec![("PATH", path.into())], ENOUGH);
        let credentials = Arc::new(NodeCredentials::with_helpers(folder.path().join("config.json"), helpers));
        let error = credentials.of(&"registry.test/a/b".parse().unwrap()).await.unwrap_err();
        assert!(matches!(error, NodeCredentialError::Helper { fault: HelperFault::Absent, .. }), "{path}: {error}");
    }
}

#[tokio::test]
async fn what_the_node_lends_goes_where_a_pulls_own_would_and_nowhere_else() {
    let authority = Authority::new();
    let thief = TestServer::start(&authority, |_| Reply::sized(200, r#"{"token":"x"}"#)).await;
    let node = TestNode::with_helper(ANSWER, ENOUGH);
    let lent = node.ask().await.unwrap();
    let elsewhere = thief.url("127.0.0.1");
    let realm = format!(r#"Bearer realm="{elsewhere}/token",service="notary""#);
    let naming = TestServer::start(&authority, move |_| Reply::sized(401, "").header("www-authenticate", &realm)).await;
    let redirecting = TestServer::start(&authority, move |_| Reply::sized(307, "").header("location", &elsewhere)).await;
    for (server, code) in [(&naming, "CS-TOKEN-REALM"), (&redirecting, "CS-SERVER-REDIRECT")] {
        let error = ask_one(&conversation(&authority, server, lent.as_ref())).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(server.seen().iter().all(|seen| seen.header("authorization").is_none()));
    }
    assert_eq!(thief.connections(), 0);
}

#[tokio::test]
async fn nothing_of_the_node_shows_a_secret() {
    let node = TestNode::with_helper(ANSWER, ENOUGH);
    node.write(r#"{"credsStore":"test","auths":{"registry.test:5000":{"auth":"YWxpY2U6aHVudGVyMg=="}}}"#);
    let lent = node.ask().await.unwrap();
    let shown = format!("{:?} {:#?} {lent:?} {lent:#?}", node.credentials, node.credentials);
    for secret in ["alice", "hunter2", "YWxpY2U6aHVudGVyMg=="] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}
