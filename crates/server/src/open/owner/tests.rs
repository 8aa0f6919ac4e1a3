//! Two machines and one disk: who yields, who takes over, who stops answering.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use forestall_engine::{Buf, CreateGroup, CreateSpec, JournalMode, Level};

use super::*;
use crate::open::{self, IoChoice};

const OURS: [u8; 16] = [1; 16];
const THEIRS: [u8; 16] = [2; 16];
const WAIT: Duration = Duration::from_secs(20);

/// A beat of a server on `machine`.
fn owner(machine: [u8; 16], beat: u64) -> Owner {
    Owner { machine, owner: 77, beat, period_ms: 2000, started_ms: 1 }
}

/// A labelled disk that nobody uses.
struct Labelled {
    paths: Vec<PathBuf>,
    _dir: tempfile::TempDir,
}

impl Labelled {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let paths: Vec<PathBuf> = ["a", "b"].map(|name| dir.path().join(name)).into();
        let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        let group = CreateGroup {
            level: Level::Raid1,
            chunk: 65536,
            journal: JournalMode::default(),
            checksums: true,
            spares: 0,
            volume: None,
        };
        let spec = CreateSpec { name: "a".into(), allow_injection: false, group: Some(group) };
        open::create(spec, &names, Some(64 << 20), IoChoice::Pread, false, &|_| {})
            .expect("an array");
        Self { paths, _dir: dir }
    }

    fn open(&self) -> Opened {
        open::open_now(&self.paths[0].display().to_string(), IoChoice::Pread).expect("nobody's")
    }

    /// Writes an owner block past the lock, as another machine does.
    fn write(&self, place: u64, block: &[u8]) {
        let file = OpenOptions::new().write(true).open(&self.paths[0]).expect("the file");
        file.write_all_at(block, place).expect("written");
    }
}

fn in_runtime<T>(work: impl Future<Output = T>) -> T {
    crate::runtime::build()
        .expect("a runtime")
        .block_on(async { compio::time::timeout(WAIT, work).await.expect("it takes far less") })
}

async fn seen(opened: &Opened) -> Option<Owner> {
    block(opened).await.expect("it has a label").1.expect("not torn")
}

#[test]
fn an_owner_on_this_machine_or_none_is_taken_over_at_once() {
    let labelled = Labelled::new();
    in_runtime(async {
        let disks = [labelled.open()];
        let (place, nobody) = block(&disks[0]).await.expect("it has a label");
        assert_eq!(nobody, Ok(None));
        assert!(suspects(&disks, Some(OURS)).await.0.is_empty());
        disks[0].write(place, owner(OURS, 5).encode()).await.expect("written");
        assert!(suspects(&disks, Some(OURS)).await.0.is_empty());
        assert_eq!(suspects(&disks, None).await.0.len(), 1, "a machine without an id knows nobody");
    });
}

#[test]
fn an_owner_elsewhere_is_watched_for_three_beats_and_refused_only_if_it_moves() {
    let labelled = Labelled::new();
    in_runtime(async {
        let disks = [labelled.open()];
        let (place, _) = block(&disks[0]).await.expect("it has a label");
        let write = async |buf| disks[0].write(place, buf).await.expect("written");
        write(owner(THEIRS, 5).encode()).await;
        let look = async || {
            let (suspects, wait) = suspects(&disks, Some(OURS)).await;
            assert_eq!((suspects.len(), wait), (1, 3 * Duration::from_secs(2)));
            suspects
        };
        refuse_moved(look().await).await.expect("it stood still: its server is gone");
        assert_eq!(seen(&disks[0]).await, Some(owner(THEIRS, 5)), "watching changes nothing");

        let watched = look().await;
        write(owner(THEIRS, 6).encode()).await;
        let refused = refuse_moved(watched).await.expect_err("it is alive");
        assert!(matches!(&refused, OpenError::Elsewhere { path } if *path == disks[0].path()));

        let watched = look().await;
        write(Owner::encode_none()).await;
        refuse_moved(watched).await.expect("it was stopped in order");

        write(Buf::copy_of(&[9; BLOCK_SIZE as usize])).await;
        let watched = look().await;
        let told = watch_words(&watched, 3 * PERIOD);
        assert!(told.contains("waiting 6 s") && told.contains(&disks[0].path()), "{told}");
        write(owner(THEIRS, 7).encode()).await;
        refuse_moved(watched).await.expect_err("a torn block became whole");

        write(Owner { period_ms: u32::MAX, ..owner(THEIRS, 8) }.encode()).await;
        let (_, wait) = suspects(&disks, Some(OURS)).await;
        assert_eq!(wait, 3 * PERIOD_MAX, "nobody waits for ever");
    });
}

/// A keeper with a short beat that keeps `opened`, and what it says.
async fn keeper(opened: &Opened) -> (Rc<Keeper>, async_channel::Receiver<String>) {
    let (say, said) = async_channel::unbounded();
    let log = move |line: &str| say.try_send(line.into()).expect("room");
    let period = Duration::from_millis(5);
    let keeper = Keeper::beating(period, &CompioRuntime::new(), Rc::default(), log);
    keeper.keep(opened.clone());
    keeper.start().await;
    (keeper, said)
}

/// Holds the thread up for more than two beats, as a suspended machine does.
fn suspend(keeper: &Keeper) {
    while !keeper.limits.fence.is_closed() {
        // Nothing else runs on this thread: poll until the lease is over.
        std::thread::sleep(keeper.period);
    }
}

#[test]
fn a_server_that_was_held_up_answers_again_once_its_disks_are_seen_to_be_its_own() {
    let labelled = Labelled::new();
    in_runtime(async {
        let opened = labelled.open();
        let (keeper, said) = keeper(&opened).await;
        let before = seen(&opened).await.expect("the first beat is there");
        assert_eq!((before.owner, before.period_ms), (keeper.me.get().owner, 5));
        suspend(&keeper);
        keeper.limits.fence.passed().await;
        assert!(keeper.me.get().beat > before.beat);
        keeper.release().await;
        assert_eq!(said.try_recv().ok(), None);
    });
}

#[test]
fn a_server_whose_disk_was_taken_meanwhile_never_answers_again_and_leaves_it_alone() {
    let labelled = Labelled::new();
    in_runtime(async {
        let opened = labelled.open();
        let (keeper, said) = keeper(&opened).await;
        let (place, _) = block(&opened).await.expect("it has a label");
        // All in one go: no beat of ours can come between.
        suspend(&keeper);
        labelled.write(place, &owner(THEIRS, 1).encode());
        let line = said.recv().await.expect("it says so");
        assert!(line.starts_with(&opened.path()) && line.contains("another server"), "{line}");
        let passed = compio::time::timeout(4 * keeper.period, keeper.limits.fence.passed());
        assert!(passed.await.is_err(), "nobody is answered");
        keeper.release().await;
        assert_eq!(seen(&opened).await, Some(owner(THEIRS, 1)), "theirs stays");
    });
}

#[test]
fn a_disk_that_leaves_gets_no_more_beats_and_one_that_stays_after_all_does() {
    let labelled = Labelled::new();
    in_runtime(async {
        let opened = labelled.open();
        let (keeper, _said) = keeper(&opened).await;
        let other = format!("{}/../{}", opened.path(), "b");
        assert!(keeper.find(&other).is_none(), "not kept");
        assert!(keeper.find(&opened.path()).is_some_and(|found| found.disk.is_same(&opened.disk)));

        keeper.quieten(&opened).await;
        let (place, _) = block(&opened).await.expect("it has a label");
        opened.write(place, Owner::encode_none()).await.expect("wiped");
        let beat = keeper.me.get().beat;
        while keeper.me.get().beat < beat + 3 {
            compio::time::sleep(keeper.period).await;
        }
        assert_eq!(seen(&opened).await, None, "beats went by");

        keeper.resume(&opened);
        while seen(&opened).await.is_none() {
            compio::time::sleep(keeper.period).await;
        }
        keeper.forget(&opened);
        assert!(keeper.find(&opened.path()).is_none());
    });
}
