//! systemd's watchdog, which ends and restarts a gate that lets through what it must refuse.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::admit::{Admit, Shown};

/// systemd is told so many times within the time that it waits, as it recommends at least two.
const PARTS: u32 = 4;
/// A proof is looked at as often, even where systemd waits for long.
const LONGEST: Duration = Duration::from_secs(10);

/// What systemd is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// That all is well.
    Well,
    /// To act as if the time were over.
    Fail,
}

/// Only an image that was wrongly allowed fails the watchdog. A trial that could not be made, or a wrong refusal, must not: the
/// node would lose its gate when it is merely busy, or on a fault that denies.
const fn told(newest: Option<&Shown>) -> Told {
    match newest {
        Some(Shown::WronglyAllowed(_)) => Told::Fail,
        None | Some(Shown::Enforced | Shown::NothingToEnforce | Shown::NotMade(_) | Shown::WronglyRefused(_)) => Told::Well,
    }
}

/// Feeds systemd's watchdog, if there is one, for as long as nothing was wrongly allowed. Then it is never fed again: a
/// restart must show that the next process is better.
pub async fn feed_watchdog(admit: Arc<Admit>) {
    let Some(length) = sd_notify::watchdog_enabled() else { return };
    let pause = (length / PARTS).min(LONGEST);
    loop {
        let newest = admit.proofs().newest;
        let told = told(newest.as_ref().map(|(_, shown)| shown));
        let state = match told {
            Told::Well => NotifyState::Watchdog,
            Told::Fail => NotifyState::WatchdogTrigger,
        };
        if let Err(error) = sd_notify::notify(&[state]) {
            tracing::warn!(%error, "systemd's watchdog could not be told");
        }
        if told == Told::Fail {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_wrongly_allowed_image_fails_the_watchdog() {
        let why = || "x".to_owned();
        assert_eq!(told(Some(&Shown::WronglyAllowed(why()))), Told::Fail);
        for well in [Shown::Enforced, Shown::NothingToEnforce, Shown::NotMade(why()), Shown::WronglyRefused(why())] {
            assert_eq!(told(Some(&well)), Told::Well, "{well:?}");
        }
        assert_eq!(told(None), Told::Well, "nothing was tried yet");
    }
}
