//! `countersign image-verifier`: what containerd 2.x runs before it pulls anything (its image verifier plugin, `bindir`).
//!
//! containerd gives Go's flags, `-name REF -digest DIGEST -stdin-media-type TYPE`, and the descriptor on standard input. Status 0
//! lets the pull go on; with any other the first kilobytes of standard output are shown as the reason.

use std::path::Path;

use super::daemon::{self, Answerer};
use super::{Exit, print};
use crate::admin;
use crate::admin::v1;

pub(super) fn run(words: &[String], config: &Path) -> Exit {
    let Some(request) = request(words) else {
        print("countersign image-verifier: containerd gives -name and -digest; this is none of its questions");
        return Exit::Usage;
    };
    let answer = daemon::run_in_force(config, async |config, work| {
        let answerer = Answerer::find(config, work).await?;
        answerer
            .ask(async |mut daemon| daemon.check_fetch(request.clone()).await, async |admit| admin::check_fetch(&admit, &request).await)
            .await
    });
    match answer {
        Ok(v1::CheckFetchResponse { refusal: None, allowed }) if !allowed.is_empty() => {
            print(&allowed);
            Exit::Ok
        }
        Ok(v1::CheckFetchResponse { refusal: Some(refusal), .. }) => {
            print(&format!("{} ({})", refusal.message, refusal.code));
            Exit::Denied
        }
        Ok(v1::CheckFetchResponse { .. }) => {
            print("the daemon gave an empty answer: is it of another version?");
            Exit::Denied
        }
        Err(exit) => {
            print("countersign could not be asked, so that nothing is pulled: see `systemctl status countersign`");
            exit
        }
    }
}

/// Go takes one dash or two, and the value in the next word or after `=`.
fn request(words: &[String]) -> Option<v1::CheckFetchRequest> {
    let value_of = |flag: &str| {
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let bare = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?;
            match bare.split_once('=') {
                Some((name, value)) if name == flag => return Some(value.to_owned()),
                Some(_) => {}
                None if bare == flag => return words.next().cloned(),
                None => drop(words.next()),
            }
        }
        None
    };
    Some(v1::CheckFetchRequest { name: value_of("name")?, digest: value_of("digest")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &[&str]) -> Option<(String, String)> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        request(&words).map(|request| (request.name, request.digest))
    }

    #[test]
    fn what_containerd_asks_is_read_as_go_reads_flags() {
        let expected = Some(("r.test/a:1".to_owned(), "sha256:d".to_owned()));
        assert_eq!(asked(&["-name", "r.test/a:1", "-digest", "sha256:d", "-stdin-media-type", "t"]), expected);
        assert_eq!(asked(&["--digest=sha256:d", "-stdin-media-type", "-name", "-name=r.test/a:1"]), expected);
        for none in [&[][..], &["-name", "a"], &["-digest", "d"], &["a", "-name", "b", "-digest", "d"], &["-digest", "d", "-name"]] {
            assert_eq!(asked(none), None, "{none:?}");
        }
    }
}
