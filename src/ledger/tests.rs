use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;

use countersign_trust::evidence::{Answer, FileName};
use countersign_trust::known::Floor;
use countersign_trust::name::Sha256;
use proptest::prelude::*;
use redb::{Database, ReadableTable as _, TableDefinition};
use tempfile::TempDir;

use super::*;

const REPOSITORIES: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("repositories");

fn held(repository: &str, version: u64, size: usize) -> Held {
    let mut evidence = Evidence::new(gun(repository), "https://notary.test".into());
    evidence.add(FileName::NewestRoot, Answer::Found(vec![version as u8; size].into()));
    evidence.add(FileName::Root(version + 1), Answer::NotFound);
    let mut known = Known { root: Some(b"root".as_slice().into()), ..Known::default() };
    known.floors.insert("targets".into(), Floor { version, signed: Sha256::of(&version.to_be_bytes()) });
    Held { known, evidence, checked_at: 1_700_000_000 + version, is_own: true }
}

fn gun(repository: &str) -> Gun {
    Gun::for_repository(&repository.parse().unwrap())
}

fn image(repository: &str, number: u64) -> VerifiedImage {
    let hash = |part: u8| Sha256::of(&[number.to_be_bytes().as_slice(), &[part]].concat());
    VerifiedImage {
        repository: repository.parse().unwrap(),
        digest: ManifestDigest::new(hash(0)),
        image_id: ImageId::new(hash(1)),
        chain_id: ChainId::new(hash(2)),
    }
}

fn file(directory: &TempDir) -> PathBuf {
    directory.path().join("ledger.redb")
}

/// What an operator would read: the error and everything below it.
fn refusal(directory: &TempDir) -> LedgerError {
    let looking = Ledger::open_to_look(directory.path()).expect_err("the ledger was looked at");
    let error = Ledger::open(directory.path()).expect_err("the ledger was opened");
    assert_eq!(looking.to_string(), error.to_string());
    error
}

fn assert_unreadable(error: &LedgerError, because: &str) {
    let LedgerError::Unreadable { what, .. } = error else { panic!("{error:?}") };
    assert!(what.contains(because), "{what}");
    assert!(error.to_string().contains("restore it from a backup"), "{error}");
}

#[test]
fn what_was_stored_is_there_after_reopening() {
    let directory = TempDir::new().unwrap();
    let ledger = Ledger::open(directory.path()).unwrap();
    assert_eq!(ledger.repository(&gun("r.test/a")).unwrap(), None);
    ledger.store_repository(&held("r.test/b", 1, 10), &|_| false).unwrap();
    ledger.store_repository(&held("r.test/a", 3, 100_000), &|_| false).unwrap();
    ledger.store_repository(&held("r.test/a", 4, 100_000), &|_| false).unwrap();
    assert!(ledger.store_image(&image("r.test/a", 1)).unwrap());
    assert!(ledger.store_image(&image("r.test/b", 1)).unwrap());
    drop(ledger);

    let ledger = Ledger::open(directory.path()).unwrap();
    assert_eq!(ledger.repository(&gun("r.test/a")).unwrap(), Some(held("r.test/a", 4, 100_000)));
    assert_eq!(ledger.repository(&gun("r.test/c")).unwrap(), None);
    let all = vec![(gun("r.test/a"), held("r.test/a", 4, 100_000)), (gun("r.test/b"), held("r.test/b", 1, 10))];
    assert_eq!(ledger.repositories().unwrap(), all);
    assert_eq!(ledger.images().unwrap(), [image("r.test/a", 1), image("r.test/b", 1)]);
}

#[test]
fn looking_at_a_ledger_leaves_the_disk_as_it_is() {
    let directory = TempDir::new().unwrap();
    let ledger = Ledger::open_to_look(directory.path()).unwrap();
    assert_eq!(ledger.repository(&gun("r.test/a")).unwrap(), None);
    assert_eq!(ledger.repositories().unwrap(), []);
    assert_eq!(ledger.images().unwrap(), []);
    drop(ledger);
    assert!(!file(&directory).exists());

    let ledger = Ledger::open(directory.path()).unwrap();
    ledger.store_repository(&held("r.test/a", 1, 10), &|_| false).unwrap();
    ledger.store_image(&image("r.test/a", 1)).unwrap();
    drop(ledger);
    let before = fs::read(file(&directory)).unwrap();
    let ledger = Ledger::open_to_look(directory.path()).unwrap();
    assert_eq!(ledger.repository(&gun("r.test/a")).unwrap(), Some(held("r.test/a", 1, 10)));
    assert!(!ledger.store_image(&image("r.test/a", 1)).unwrap());
    drop(ledger);
    assert_eq!(fs::read(file(&directory)).unwrap(), before);
}

#[test]
fn a_look_that_has_something_to_record_records_it() {
    let directory = TempDir::new().unwrap();
    let ledger = Ledger::open_to_look(directory.path()).unwrap();
    ledger.store_repository(&held("r.test/a", 1, 10), &|_| false).unwrap();
    assert_eq!(ledger.repository(&gun("r.test/a")).unwrap(), Some(held("r.test/a", 1, 10)));
    ledger.store_repository(&held("r.test/a", 2, 10), &|_| false).unwrap();
    drop(ledger);

    let ledger = Ledger::open_to_look(directory.path()).unwrap();
    ledger.store_repository(&held("r.test/b", 1, 10), &|_| false).unwrap();
    assert!(ledger.store_image(&image("r.test/b", 1)).unwrap());
    drop(ledger);

    let ledger = Ledger::open(directory.path()).unwrap();
    let all = [(gun("r.test/a"), held("r.test/a", 2, 10)), (gun("r.test/b"), held("r.test/b", 1, 10))];
    assert_eq!(ledger.repositories().unwrap(), all);
    assert_eq!(ledger.images().unwrap(), [image("r.test/b", 1)]);
}

#[test]
fn a_ledger_that_vanished_is_not_taken_for_a_new_one() {
    let directory = TempDir::new().unwrap();
    Ledger::open(directory.path()).unwrap().store_repository(&held("r.test/a", 2, 10), &|_| false).unwrap();
    let ledger = Ledger::open_to_look(directory.path()).unwrap();
    fs::remove_file(file(&directory)).unwrap();
    for _ in 0..2 {
        let error = ledger.store_repository(&held("r.test/a", 1, 10), &|_| false).unwrap_err();
        assert!(matches!(error, LedgerError::Read { .. }), "{error:?}");
    }
    assert!(!file(&directory).exists());
}

#[test]
fn a_ledger_that_is_put_back_during_a_look_is_not_written_over() {
    let (directory, backup) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    Ledger::open(backup.path()).unwrap().store_repository(&held("r.test/a", 9, 10), &|_| false).unwrap();
    let ledger = Ledger::open_to_look(directory.path()).unwrap();
    fs::copy(file(&backup), file(&directory)).unwrap();
    for _ in 0..2 {
        let error = ledger.store_repository(&held("r.test/a", 1, 10), &|_| false).unwrap_err();
        assert!(matches!(error, LedgerError::Appeared { .. }), "{error:?}");
    }
    drop(ledger);
    assert_eq!(fs::read(file(&directory)).unwrap(), fs::read(file(&backup)).unwrap());
    let ledger = Ledger::open_to_look(directory.path()).unwrap();
    assert_eq!(ledger.repository(&gun("r.test/a")).unwrap(), Some(held("r.test/a", 9, 10)));
}

#[test]
fn a_look_after_a_crash_finds_what_was_recorded() {
    let directory = TempDir::new().unwrap();
    let ledger = Ledger::open(directory.path()).unwrap();
    ledger.store_repository(&held("r.test/a", 1, 10), &|_| false).unwrap();
    let crashed = TempDir::new().unwrap();
    fs::copy(file(&directory), file(&crashed)).unwrap();
    drop(ledger);

    let ledger = Ledger::open_to_look(crashed.path()).unwrap();
    assert_eq!(ledger.repository(&gun("r.test/a")).unwrap(), Some(held("r.test/a", 1, 10)));
}

#[test]
fn clones_share_one_ledger_between_threads() {
    let directory = TempDir::new().unwrap();
    let ledger = Ledger::open(directory.path()).unwrap();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let ledger = ledger.clone();
            scope.spawn(move || ledger.store_repository(&held(&format!("r.test/{number}"), number, 10), &|_| false).unwrap());
        }
    });
    assert_eq!(ledger.repositories().unwrap().len(), 8);
}

#[test]
fn an_image_on_record_is_not_written_again() {
    let directory = TempDir::new().unwrap();
    let ledger = Ledger::open(directory.path()).unwrap();
    assert!(ledger.store_image(&image("r.test/a", 1)).unwrap());
    let before = fs::read(file(&directory)).unwrap();
    assert!(!ledger.store_image(&image("r.test/a", 1)).unwrap());
    assert!(fs::read(file(&directory)).unwrap() == before, "the file changed");
    assert!(ledger.store_image(&image("r.test/a", 2)).unwrap());
    assert!(fs::read(file(&directory)).unwrap() != before, "a new record did not change the file");
    drop(ledger);
    assert!(!Ledger::open(directory.path()).unwrap().store_image(&image("r.test/a", 2)).unwrap());
}

#[test]
fn only_its_owner_may_read_the_ledger() {
    let directory = TempDir::new().unwrap();
    drop(Ledger::open(directory.path()).unwrap());
    let mode = || fs::metadata(file(&directory)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    fs::set_permissions(file(&directory), fs::Permissions::from_mode(0o644)).unwrap();
    drop(Ledger::open(directory.path()).unwrap());
    assert_eq!(mode(), 0o600);
}

#[test]
fn a_second_opener_is_told_that_the_ledger_is_in_use() {
    let directory = TempDir::new().unwrap();
    let first = Ledger::open(directory.path()).unwrap();
    let error = refusal(&directory);
    assert!(matches!(error, LedgerError::InUse { .. }), "{error:?}");
    assert!(error.to_string().ends_with("is the daemon running?"), "{error}");
    drop(first);
    assert!(Ledger::open(directory.path()).is_ok());
}

#[test]
fn a_database_that_another_program_holds_is_in_use() {
    let directory = TempDir::new().unwrap();
    drop(Ledger::open(directory.path()).unwrap());
    let _other = Database::open(file(&directory)).unwrap();
    assert!(matches!(refusal(&directory), LedgerError::InUse { .. }));
}

#[test]
fn a_missing_directory_is_not_created() {
    let directory = TempDir::new().unwrap();
    let error = Ledger::open(&directory.path().join("absent")).unwrap_err();
    assert!(matches!(error, LedgerError::Directory { .. }), "{error:?}");
}

#[test]
fn an_empty_file_is_unreadable_and_never_new() {
    let directory = TempDir::new().unwrap();
    fs::write(file(&directory), b"").unwrap();
    assert_unreadable(&refusal(&directory), "the file is empty");
    assert_eq!(fs::metadata(file(&directory)).unwrap().len(), 0);
}

#[test]
fn random_bytes_and_zeros_are_unreadable() {
    let directory = TempDir::new().unwrap();
    for bytes in [b"random bytes".repeat(1000), vec![0; 1 << 20]] {
        fs::write(file(&directory), bytes).unwrap();
        assert_unreadable(&refusal(&directory), "another kind");
    }
    fs::write(file(&directory), b"redb").unwrap();
    assert_unreadable(&refusal(&directory), "cut short");
    fs::write(file(&directory), [b"redb\x1A\x0A\xA9\x0D\x0A".as_slice(), &b"random bytes".repeat(1000)].concat()).unwrap();
    assert_unreadable(&refusal(&directory), "redb reports damage");
}

#[test]
fn a_link_or_a_directory_in_its_place_is_unreadable() {
    let directory = TempDir::new().unwrap();
    std::os::unix::fs::symlink(directory.path().join("elsewhere"), file(&directory)).unwrap();
    assert_unreadable(&refusal(&directory), "not a regular file");
    fs::remove_file(file(&directory)).unwrap();
    fs::create_dir(file(&directory)).unwrap();
    assert_unreadable(&refusal(&directory), "not a regular file");
}

#[test]
fn a_database_of_another_program_is_unreadable() {
    let directory = TempDir::new().unwrap();
    let foreign = Database::create(file(&directory)).unwrap();
    let transaction = foreign.begin_write().unwrap();
    transaction.open_table(REPOSITORIES).unwrap().insert("a", b"b".as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(foreign);
    assert_unreadable(&refusal(&directory), "another kind");
}

#[test]
fn a_ledger_of_another_version_is_unreadable() {
    let directory = TempDir::new().unwrap();
    drop(Ledger::open(directory.path()).unwrap());
    edit(&directory, |transaction| {
        let table = TableDefinition::<&str, &[u8]>::new("countersign-ledger-version");
        transaction.open_table(table).unwrap().insert("ledger", record::seal(b"ledger", b"9").as_slice()).unwrap();
    });
    assert_unreadable(&refusal(&directory), "version 9");
}

#[test]
fn a_ledger_without_its_tables_is_unreadable() {
    let directory = TempDir::new().unwrap();
    drop(Ledger::open(directory.path()).unwrap());
    edit(&directory, |transaction| {
        transaction.delete_table(REPOSITORIES).unwrap();
    });
    assert_unreadable(&refusal(&directory), "redb reports damage");
}

#[test]
fn what_an_interrupted_creation_left_is_removed() {
    let directory = TempDir::new().unwrap();
    let leftover = directory.path().join("ledger.redb.new");
    fs::write(&leftover, b"half a database").unwrap();
    let ledger = Ledger::open(directory.path()).unwrap();
    assert!(!leftover.exists());
    ledger.store_repository(&held("r.test/a", 1, 10), &|_| false).unwrap();
    drop(ledger);

    fs::write(&leftover, b"half a database").unwrap();
    assert_eq!(Ledger::open(directory.path()).unwrap().repositories().unwrap().len(), 1);
    assert!(!leftover.exists());
}

/// Changes a closed ledger as a program would that keeps to redb's rules and not to ours.
fn edit(directory: &TempDir, change: impl FnOnce(&redb::WriteTransaction)) {
    let database = Database::open(file(directory)).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
}

#[test]
fn a_changed_value_is_unreadable_and_the_repository_is_named() {
    let directory = TempDir::new().unwrap();
    let ledger = Ledger::open(directory.path()).unwrap();
    ledger.store_repository(&held("r.test/a", 1, 10), &|_| false).unwrap();
    ledger.store_repository(&held("r.test/b", 1, 10), &|_| false).unwrap();
    drop(ledger);
    edit(&directory, |transaction| {
        let mut table = transaction.open_table(REPOSITORIES).unwrap();
        let mut value = table.get("r.test/a").unwrap().unwrap().value().to_vec();
        value[60] ^= 1;
        table.insert("r.test/a", value.as_slice()).unwrap();
    });
    let ledger = Ledger::open(directory.path()).unwrap();
    let because = "repository `r.test/a`: its hash does not match";
    assert_unreadable(&ledger.repository(&gun("r.test/a")).unwrap_err(), because);
    assert_unreadable(&ledger.repositories().unwrap_err(), because);
    assert_eq!(ledger.repository(&gun("r.test/b")).unwrap(), Some(held("r.test/b", 1, 10)));
}

#[test]
fn a_value_under_another_name_is_unreadable() {
    let directory = TempDir::new().unwrap();
    let ledger = Ledger::open(directory.path()).unwrap();
    ledger.store_repository(&held("r.test/a", 1, 10), &|_| false).unwrap();
    drop(ledger);
    edit(&directory, |transaction| {
        let mut table = transaction.open_table(REPOSITORIES).unwrap();
        let value = table.get("r.test/a").unwrap().unwrap().value().to_vec();
        table.insert("r.test/b", value.as_slice()).unwrap();
        let resealed = record::seal(b"r.test/c", record::open(b"r.test/a", &value).unwrap());
        table.insert("r.test/c", resealed.as_slice()).unwrap();
    });
    let ledger = Ledger::open(directory.path()).unwrap();
    assert_unreadable(&ledger.repository(&gun("r.test/b")).unwrap_err(), "`r.test/b`: its hash does not match");
    assert_unreadable(&ledger.repository(&gun("r.test/c")).unwrap_err(), "`r.test/c`: it belongs to another repository");
}

#[test]
fn the_limits_refuse_repositories_and_record_nothing() {
    let directory = TempDir::new().unwrap();
    let ledger = Ledger::open(directory.path()).unwrap();
    let error = ledger.store_repository(&held("r.test/a", 1, MAX_REPOSITORY_BYTES as usize), &|_| false).unwrap_err();
    assert!(matches!(error, LedgerError::Full { limit: MAX_REPOSITORY_BYTES, .. }), "{error:?}");
    assert_eq!(ledger.repositories().unwrap(), []);
}

#[test]
fn whoever_signs_below_one_pin_takes_no_more_than_half_and_the_others_go_on() {
    let directory = TempDir::new().unwrap();
    let ledger = Ledger::open(directory.path()).unwrap();
    let theirs = |gun: &str| gun.starts_with("r.test/tenant/");
    let mut store = ledger.0.store.write().unwrap().take().unwrap();
    for number in 0..4 {
        store.sizes.insert(format!("r.test/tenant/{number}"), MAX_SHARED_BYTES / 4);
    }
    let refused = store.store_repository(&held("r.test/tenant/more", 1, 10), &theirs).unwrap_err();
    assert!(
        matches!(&refused, LedgerError::Full { limit: MAX_SHARED_BYTES, largest: Some(largest), .. } if theirs(largest)),
        "{refused:?}"
    );
    store.store_repository(&held("r.test/tenant/0", 1, 10), &theirs).unwrap();
    store.sizes.insert("r.test/tenant/more".to_owned(), MAX_SHARED_BYTES / 4);
    store.store_repository(&held("r.test/tenant/0", 2, 10), &theirs).expect("what takes no more room is taken beyond the limit, too");
    let refused = store.store_repository(&held("r.test/tenant/0", 3, 11), &theirs).unwrap_err();
    assert!(matches!(refused, LedgerError::Full { limit: MAX_SHARED_BYTES, .. }), "{refused:?}");
    store.sizes.remove("r.test/tenant/more");
    store.store_repository(&held("r.test/team/app", 1, 10), &|gun| !theirs(gun)).unwrap();
    store.sizes.insert("r.test/other/app".to_owned(), MAX_TOTAL_BYTES - MAX_SHARED_BYTES / 4 * 3);
    let refused = store.store_repository(&held("r.test/last/app", 1, 10), &|_| false).unwrap_err();
    assert!(matches!(refused, LedgerError::Full { limit: MAX_TOTAL_BYTES, .. }), "{refused:?}");
    let advice = "; most is held for r.test/other/app: if this node does not need that, `countersign reset r.test/other/app --reason TEXT`";
    assert!(refused.to_string().contains(advice), "{refused}");
}

#[test]
fn a_repository_at_its_share_of_images_evicts_only_its_own_oldest() {
    let directory = TempDir::new().unwrap();
    let mut store = {
        let ledger = Ledger::open(directory.path()).unwrap();
        ledger.store_image(&image("r.test/other", 0)).unwrap();
        let taken = ledger.0.store.write().unwrap().take();
        taken.unwrap()
    };
    for number in 0..=MAX_IMAGES_PER_REPOSITORY as u64 {
        store.remember(number + 1, &image("r.test/a", number));
    }
    let newest = image("r.test/a", 1_000_000);
    store.store_image(&newest).unwrap();
    assert!(store.has_image(&newest));
    assert!(store.has_image(&image("r.test/other", 0)));
    assert!(!store.has_image(&image("r.test/a", 0)), "the repository's oldest is still there");
    assert!(store.has_image(&image("r.test/a", 1)));
}

/// A real ledger with an old and a new floor for a repository, closed or as a crash leaves it.
fn ledger_file(clean: bool) -> Vec<u8> {
    let directory = quick_directory();
    let ledger = Ledger::open(directory.path()).unwrap();
    for number in 0..40 {
        ledger.store_repository(&held(&format!("r.test/{number}"), 1, 500), &|_| false).unwrap();
        ledger.store_image(&image("r.test/1", number)).unwrap();
    }
    ledger.store_repository(&held("r.test/1", 7, 9000), &|_| false).unwrap();
    if clean {
        drop(ledger);
    }
    fs::read(file(&directory)).unwrap()
}

/// Where files are synced to memory at once, if there is such a place: thousands of ledgers are opened here.
fn quick_directory() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

/// Opens `bytes` as a ledger. Whatever was done to them, what is answered is right, or it is an error.
fn assert_right_or_refused(bytes: &[u8], what: &str) -> bool {
    let directory = quick_directory();
    fs::write(file(&directory), bytes).unwrap();
    let answer = catch_unwind(AssertUnwindSafe(|| {
        let ledger = Ledger::open(directory.path())?;
        Ok::<_, LedgerError>((ledger.repository(&gun("r.test/1"))?, ledger.repositories()?.len(), ledger.images()?.len()))
    }));
    match answer {
        Ok(Ok((held_now, repositories, images))) => {
            assert_eq!(held_now, Some(held("r.test/1", 7, 9000)), "{what}");
            assert_eq!((repositories, images), (40, 40), "{what}");
            true
        }
        Ok(Err(_)) => false,
        Err(_) => panic!("opening panicked: {what}"),
    }
}

#[test]
fn no_flipped_bit_of_the_header_rolls_back_or_panics() {
    for clean in [true, false] {
        let bytes = ledger_file(clean);
        assert!(assert_right_or_refused(&bytes, "unchanged"), "an unchanged file is not opened");
        // Every bit of the header proper, which has no checksum, and one of each byte of the two commit slots.
        let bits: Vec<usize> = (0..64 * 8).chain((64..320).map(|byte| byte * 8 + byte % 8)).collect();
        let is_opened = |bit: &&usize| {
            let mut flipped = bytes.clone();
            flipped[*bit / 8] ^= 1 << (*bit % 8);
            assert_right_or_refused(&flipped, &format!("bit {bit}, closed cleanly: {clean}"))
        };
        assert!(bits.iter().filter(is_opened).count() < bits.len(), "no flipped bit was ever noticed");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_damaged_file_panics_or_answers_wrongly(
        clean: bool,
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1_u8..), 1..4),
        length in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        zeroed in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        static FILES: std::sync::LazyLock<[Vec<u8>; 2]> = std::sync::LazyLock::new(|| [ledger_file(false), ledger_file(true)]);
        let mut bytes = FILES[usize::from(clean)].clone();
        for (at, mask) in &flips {
            let at = at.index(bytes.len());
            bytes[at] ^= mask;
        }
        if let Some(at) = zeroed {
            let page = at.index(bytes.len() / 4096) * 4096;
            bytes[page..page + 4096].fill(0);
        }
        if let Some(length) = length {
            bytes.truncate(length.index(bytes.len()).max(1));
        }
        assert_right_or_refused(&bytes, "several damages");
    }
}

#[test]
fn no_damaged_byte_of_a_used_page_panics_or_answers_wrongly() {
    let bytes = ledger_file(true);
    let used = bytes.iter().enumerate().skip(4096).filter(|(_, byte)| **byte != 0).map(|(at, _)| at);
    let mut noticed = 0;
    for at in used.step_by(97) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x41;
        noticed += u32::from(!assert_right_or_refused(&flipped, &format!("byte {at}")));
    }
    assert!(noticed > 50, "only {noticed} damages were noticed");
}

struct Mount(TempDir);

impl Mount {
    fn small() -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(directory.path()).status();
        if mounted.is_ok_and(|status| status.success()) { Some(Self(directory)) } else { None }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

#[test]
#[allow(clippy::print_stderr)]
fn a_full_disk_is_a_write_error_and_the_ledger_recovers_when_there_is_room() {
    let Some(mount) = Mount::small() else {
        eprintln!("skipped: a tmpfs cannot be mounted here (not root?)");
        return;
    };
    let ledger = Ledger::open(mount.0.path()).unwrap();
    ledger.store_repository(&held("r.test/a", 1, 1000), &|_| false).unwrap();
    let ballast = mount.0.path().join("ballast");
    drop(fs::write(&ballast, vec![1; 4 << 20]));

    let error = ledger.store_repository(&held("r.test/a", 2, 600_000), &|_| false).unwrap_err();
    assert!(matches!(error, LedgerError::Write { .. }), "{error:?}");
    let still = ledger.repository(&gun("r.test/a"));
    match still {
        Ok(held_now) => assert_eq!(held_now, Some(held("r.test/a", 1, 1000))),
        Err(LedgerError::Read { .. } | LedgerError::Write { .. }) => {}
        Err(other) => panic!("{other:?}"),
    }

    fs::remove_file(&ballast).unwrap();
    assert_eq!(ledger.repository(&gun("r.test/a")).unwrap(), Some(held("r.test/a", 1, 1000)));
    ledger.store_repository(&held("r.test/a", 2, 600_000), &|_| false).unwrap();
    drop(ledger);
    let reopened = Ledger::open(mount.0.path()).unwrap();
    assert_eq!(reopened.repository(&gun("r.test/a")).unwrap(), Some(held("r.test/a", 2, 600_000)));
}

#[test]
#[allow(clippy::print_stderr, reason = "a skipped test must not pass in silence")]
fn a_look_that_found_the_disk_full_records_when_there_is_room() {
    let Some(mount) = Mount::small() else {
        eprintln!("skipped: a tmpfs cannot be mounted here (not root?)");
        return;
    };
    let ledger = Ledger::open_to_look(mount.0.path()).unwrap();
    let ballast = mount.0.path().join("ballast");
    drop(fs::write(&ballast, vec![1; 4 << 20]));
    for _ in 0..2 {
        let error = ledger.store_repository(&held("r.test/a", 1, 10), &|_| false).unwrap_err();
        assert!(matches!(error, LedgerError::Write { .. }), "{error:?}");
        assert_eq!(ledger.repositories().unwrap(), []);
    }

    fs::remove_file(&ballast).unwrap();
    ledger.store_repository(&held("r.test/a", 1, 10), &|_| false).unwrap();
    drop(ledger);
    assert_eq!(Ledger::open(mount.0.path()).unwrap().repositories().unwrap(), [(gun("r.test/a"), held("r.test/a", 1, 10))]);
}

fn service(number: usize, taken_at: i64, until: i64) -> Grandfathered {
    let VerifiedImage { digest, image_id, chain_id, .. } = image("r.test/a", number as u64);
    Grandfathered {
        workload: Workload { pod_uid: format!("uid-{number}"), container: "web".to_owned() },
        namespace: "shop".to_owned(),
        pod: format!("web-{number}"),
        image: "r.test/a:1".to_owned(),
        content: RanContent { target: digest, manifest: digest, image_id, chain_id },
        is_verified: false,
        volumes: Vec::new(),
        taken_at,
        until,
        by: "somebody: installation".to_owned(),
    }
}

fn act(what: &str) -> Act {
    Act { at: 1, by: "somebody".to_owned(), what: what.to_owned(), reason: "because".to_owned() }
}

#[test]
fn services_that_go_on_and_earlier_modes_are_there_after_reopening_and_a_ledger_without_them_has_none() {
    let directory = TempDir::new().unwrap();
    let ledger = Ledger::open(directory.path()).unwrap();
    assert_eq!((ledger.grandfathered().unwrap(), ledger.modes().unwrap()), (Vec::new(), Vec::new()));
    ledger.store_modes("permissive", &[]).unwrap();
    ledger.store_modes("enforced", &[service(1, 10, 100)]).unwrap();
    ledger.store_act(&act("taken"), &Effect::Admit(vec![service(2, 20, 200)])).unwrap();
    drop(ledger);

    let ledger = Ledger::open(directory.path()).unwrap();
    assert_eq!(ledger.modes().unwrap(), ["permissive", "enforced"]);
    assert_eq!(ledger.grandfathered().unwrap(), [service(1, 10, 100), service(2, 20, 200)]);
    ledger.store_act(&act("ended"), &Effect::End(vec![service(1, 0, 0).workload])).unwrap();
    assert_eq!(ledger.grandfathered().unwrap(), [service(2, 20, 200)]);
    assert_eq!(ledger.acts().unwrap().len(), 2);
}

#[test]
fn the_image_volumes_of_a_service_are_there_after_reopening() {
    let directory = TempDir::new().unwrap();
    let ledger = Ledger::open(directory.path()).unwrap();
    let volume = |number| RanVolume { image: format!("r.test/data:{number}"), content: service(number, 0, 0).content };
    let services = [
        service(1, 10, 100),
        Grandfathered { volumes: vec![volume(7), volume(8)], ..service(2, 10, 100) },
        Grandfathered { is_verified: true, volumes: vec![RanVolume { image: String::new(), ..volume(9) }], ..service(3, 10, 100) },
    ];
    ledger.store_modes("enforced", &services).unwrap();
    drop(ledger);
    assert_eq!(Ledger::open(directory.path()).unwrap().grandfathered().unwrap(), services);
}

#[test]
fn services_that_have_ended_make_room_and_the_limit_refuses_more() {
    let directory = TempDir::new().unwrap();
    let ledger = Ledger::open(directory.path()).unwrap();
    let many: Vec<Grandfathered> = (0..MAX_GRANDFATHERED).map(|number| service(number, 10, 100)).collect();
    ledger.store_act(&act("taken"), &Effect::Admit(many)).unwrap();
    let one_more = |taken_at| ledger.store_act(&act("taken"), &Effect::Admit(vec![service(MAX_GRANDFATHERED, taken_at, 500)]));
    assert!(matches!(one_more(99), Err(LedgerError::Full { .. })));
    assert_eq!((ledger.acts().unwrap().len(), ledger.grandfathered().unwrap().len()), (1, MAX_GRANDFATHERED));
    one_more(100).unwrap();
    assert_eq!(ledger.grandfathered().unwrap().len(), 1);
}
