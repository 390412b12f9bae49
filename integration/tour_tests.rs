//! The demo shows what it says, and says so when it does not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, reason = "test code")]

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::gate::binary;
use super::tour::{self, show::Show};

/// CRI is containerd's own: a gate that is none.
const OPEN_DOOR: &str = r#"#!/bin/sh
value() { sed -n "s/^$1 = \"\(.*\)\"/\1/p" "$2"; }
ln -sf "$(value address "$3")" "$(value cri "$3")"
exec sleep 1000
"#;

/// countersign itself, but it never enforces.
const NEVER_ENFORCES: &str = r#"#!/bin/sh
sed 's/^mode = .*/mode = "permissive"/' "$3" >"$3.permissive"
exec "COUNTERSIGN" serve --config "$3.permissive"
"#;

/// countersign itself, but it does not share: it has no store to share in, and says that it is a member.
const SHARES_WITH_NOBODY: &str = r#"#!/bin/sh
case "$1 $2" in
"cluster init") exec "COUNTERSIGN" "$@" ;;
"cluster key") echo "countersign cluster enroll any ed25519:any" ;;
"cluster "*) exit 0 ;;
"serve "*) sed '/^\[store\]/,$d' "$3" >"$3.alone"; exec "COUNTERSIGN" serve --config "$3.alone" ;;
*) exec "COUNTERSIGN" "$@" ;;
esac
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_shows_every_step_as_expected_without_colour_where_there_is_no_terminal() {
    let (steps, shown) = shown_with(binary()).await;
    assert_eq!(steps, [true; 8], "{shown}");
    assert_eq!(shown.matches("✓ as expected").count(), 8, "{shown}");
    assert!(shown.contains("✓ All 8 steps did what they must") && !shown.contains('\x1b'), "{shown}");
    assert!(shown.contains("STATUS SignatureValidationFailed") && shown.contains("let pass: mode is permissive"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demos_second_part_shows_two_nodes_that_keep_one_digest() {
    let page = Page::default();
    let mut show = Show::new(Box::new(page.clone()), false);
    let steps = tour::nodes::run(binary(), &mut show, 9).await;
    let shown = page.text();
    assert_eq!(steps, [true; 3], "{shown}");
    assert!(shown.contains("9. Two nodes keep one digest") && shown.contains("11. And takes it back"), "{shown}");
}

/// countersign itself, but each node pins for itself alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demos_second_part_fails_where_nodes_do_not_share() {
    let content = SHARES_WITH_NOBODY.replace("COUNTERSIGN", binary().to_str().unwrap());
    let page = Page::default();
    let mut show = Show::new(Box::new(page.clone()), false);
    let steps = tour::nodes::run(&script("shares-with-nobody", &content), &mut show, 9).await;
    assert_eq!(steps, [false, false, false], "{}", page.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_fails_with_a_gate_that_lets_everything_pass() {
    let (steps, shown) = shown_with(&script("open-door", OPEN_DOOR)).await;
    assert_eq!(steps, [true, false, false, false, false, false, false, false], "{shown}");
    assert!(shown.contains("✗ Not as expected: step 2, 3, 4, 5, 6, 7, 8 of 8"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_fails_at_each_step_that_asks_for_a_refusal_when_nothing_is_enforced() {
    let content = NEVER_ENFORCES.replace("COUNTERSIGN", binary().to_str().unwrap());
    let (steps, shown) = shown_with(&script("never-enforces", &content)).await;
    assert_eq!(steps, [true, false, true, false, false, false, true, false], "{shown}");
}

async fn shown_with(binary: &Path) -> (Vec<bool>, String) {
    let page = Page::default();
    let mut show = Show::new(Box::new(page.clone()), false);
    let steps = tour::run(binary, &mut show).await;
    show.end(&steps, std::time::Duration::ZERO);
    (steps, page.text())
}

fn script(name: &str, content: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

/// What was printed.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Page {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
