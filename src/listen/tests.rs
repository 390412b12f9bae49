use std::os::unix::fs::chown;

use super::*;

/// A directory that is as it should be. Not below it: tempfile's own is 0700 only since it makes it so.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    narrow(directory.path(), 0o700);
    directory
}

fn narrow(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

async fn open(path: &Path) -> Result<Listener, ListenError> {
    Listener::open(path, &mut Inherited::default()).await
}

#[tokio::test]
async fn a_new_socket_is_0600_in_a_new_0700_directory() {
    let root = directory();
    let path = root.path().join("run/cri.sock");
    let listener = open(&path).await.unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777, 0o700);
    let (client, _server) = tokio::join!(UnixStream::connect(&path), listener.accept());
    client.unwrap();
}

#[tokio::test]
async fn a_relative_path_is_refused() {
    assert!(matches!(open(Path::new("cri.sock")).await, Err(ListenError::Relative { .. })));
}

#[tokio::test]
async fn a_socket_file_that_nobody_answers_on_is_replaced() {
    let root = directory();
    let path = root.path().join("cri.sock");
    drop(open(&path).await.unwrap());
    assert!(path.exists());
    let listener = open(&path).await.unwrap();
    let (client, _server) = tokio::join!(UnixStream::connect(&path), listener.accept());
    client.unwrap();
}

#[tokio::test]
async fn a_socket_that_somebody_answers_on_is_left_alone() {
    let root = directory();
    let path = root.path().join("cri.sock");
    let listener = open(&path).await.unwrap();
    let error = open(&path).await.unwrap_err();
    assert!(matches!(error, ListenError::InUse { .. }), "{error}");
    // The question itself was a connection; the next one is still served.
    listener.accept().await;
    let (client, _server) = tokio::join!(UnixStream::connect(&path), listener.accept());
    client.unwrap();
}

#[tokio::test]
async fn a_directory_that_others_may_enter_is_refused_with_the_remedy() {
    let root = directory();
    for mode in [0o755, 0o710, 0o701] {
        narrow(root.path(), mode);
        let error = open(&root.path().join("cri.sock")).await.unwrap_err();
        assert!(matches!(error, ListenError::WideDirectory { mode: found, .. } if found == mode), "{error}");
        assert!(error.to_string().contains("chmod 0700"), "{error}");
    }
}

#[tokio::test]
async fn a_symbolic_link_in_place_of_the_directory_is_refused() {
    let root = directory();
    fs::create_dir(root.path().join("real")).unwrap();
    std::os::unix::fs::symlink(root.path().join("real"), root.path().join("link")).unwrap();
    let error = open(&root.path().join("link/cri.sock")).await.unwrap_err();
    assert!(matches!(error, ListenError::WrongKind { expected: "directory", .. }), "{error}");
}

#[tokio::test]
async fn a_wide_socket_that_exists_is_refused_and_not_removed() {
    let root = directory();
    let path = root.path().join("cri.sock");
    drop(StdUnixListener::bind(&path).unwrap());
    narrow(&path, 0o666);
    let error = open(&path).await.unwrap_err();
    assert!(matches!(error, ListenError::WideSocket { mode: 0o666, .. }), "{error}");
    assert!(path.exists());
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_refused_and_not_removed() {
    let root = directory();
    let path = root.path().join("cri.sock");
    fs::write(&path, "precious").unwrap();
    narrow(&path, 0o600);
    let error = open(&path).await.unwrap_err();
    assert!(matches!(error, ListenError::WrongKind { expected: "socket", .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn what_belongs_to_another_user_is_refused() {
    let root = directory();
    // As root the file is given away; otherwise it is looked at as if we were somebody else.
    let own = rustix::process::geteuid().as_raw();
    if own == 0 {
        chown(root.path(), Some(65_534), None).unwrap();
    }
    let error = refuse_wide_directory(root.path(), own + 1).unwrap_err();
    assert!(matches!(error, ListenError::Owner { .. }), "{error}");
}

#[test]
fn only_root_and_our_own_user_may_connect() {
    assert_eq!([0, 1000, 1001].map(|uid| permitted(uid, 1000)), [true, true, false]);
    assert_eq!([0, 1000].map(|uid| permitted(uid, 0)), [true, false]);
}

/// Run as another user by the test below.
#[test]
#[ignore = "part of another test"]
fn connect_and_wait_for_the_end() {
    let Some(path) = std::env::var_os("SOCKET_OF_ANOTHER_USER") else { return };
    let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
    assert_eq!(io::Read::read(&mut stream, &mut [0]).unwrap(), 0);
}

#[tokio::test]
async fn a_connection_of_another_user_is_closed_and_the_next_one_served() {
    let root = directory();
    let path = root.path().join("cri.sock");
    let mut listener = open(&path).await.unwrap();
    let own = listener.own;
    // Only root can be somebody else; any other user takes itself for another one.
    let mut stranger = tokio::process::Command::new(std::env::current_exe().unwrap());
    stranger.args(["--exact", "listen::tests::connect_and_wait_for_the_end", "--include-ignored"]);
    stranger.env("SOCKET_OF_ANOTHER_USER", &path).stdout(std::process::Stdio::piped());
    if own == 0 {
        narrow(root.path(), 0o755);
        narrow(&path, 0o666);
        stranger.uid(65_534);
    } else {
        listener.own = own + 1;
    }
    let refused = tokio::select! {
        refused = stranger.output() => refused.unwrap(),
        _ = listener.accept() => panic!("the stranger was let in"),
    };
    // A stranger that never came was not refused.
    let said = String::from_utf8_lossy(&refused.stdout);
    assert!(refused.status.success() && said.contains("1 passed"), "{said}");
    listener.own = own;
    let (client, server) = tokio::join!(UnixStream::connect(&path), listener.accept());
    client.unwrap();
    assert_eq!(server.peer_cred().unwrap().uid(), own);
}

#[tokio::test]
async fn an_inherited_socket_is_found_by_its_path_and_not_by_its_place() {
    let root = directory();
    let paths = ["admin.sock", "cri.sock"].map(|name| root.path().join(name));
    let bound = paths.each_ref().map(|path| {
        let listener = StdUnixListener::bind(path).unwrap();
        narrow(path, 0o600);
        listener
    });
    let mut inherited = Inherited::from(Vec::from(bound));
    let listener = Listener::open(&paths[1], &mut inherited).await.unwrap();
    assert_eq!(inherited.left(), [paths[0].clone()]);
    let (client, _server) = tokio::join!(UnixStream::connect(&paths[1]), listener.accept());
    client.unwrap();
}

#[tokio::test]
async fn an_inherited_socket_that_is_wide_or_in_a_wide_directory_is_refused() {
    let root = directory();
    let path = root.path().join("cri.sock");
    let bound = StdUnixListener::bind(&path).unwrap();
    narrow(&path, 0o666);
    let error = Listener::open(&path, &mut Inherited::from(vec![bound.try_clone().unwrap()])).await.unwrap_err();
    assert!(matches!(error, ListenError::WideSocket { mode: 0o666, .. }), "{error}");
    assert!(error.to_string().contains("SocketMode=0600"), "{error}");
    narrow(&path, 0o600);
    narrow(root.path(), 0o755);
    let error = Listener::open(&path, &mut Inherited::from(vec![bound])).await.unwrap_err();
    assert!(matches!(error, ListenError::WideDirectory { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_line_that_can_be_repeated_at_will_is_logged_once_in_ten_seconds_with_its_count() {
    let throttle = Throttle::default();
    assert_eq!([throttle.pass(), throttle.pass(), throttle.pass()], [Some(1), None, None]);
    tokio::time::advance(LOG_INTERVAL).await;
    assert_eq!(throttle.pass(), Some(3));
}
