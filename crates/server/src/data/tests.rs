//! The data thread from start to stop, and the disks it takes, refuses and lets go.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::Ordering;

use forestall_engine::{CreateSpec, DiskNumber, DiskRole, DiskState, JournalMode, Level};
use forestall_nbd::{Client, ClientOptions};

use super::*;
use crate::open;

const SIZE: u64 = 64 << 20;

fn options(dir: &Path, paths: Vec<String>) -> ServeOptions {
    ServeOptions {
        paths,
        scan: Vec::new(),
        nbd: vec![NbdAddr::Unix(dir.join("nbd"))],
        io: IoChoice::default(),
        assemble: AssembleOptions::default(),
        wait_s: 0,
        memory: None,
        log: Arc::new(|line| eprintln!("{line}")),
        abort: Arc::default(),
    }
}

/// A mirror of `count` new files in `dir`.
fn mirror(dir: &Path, name: &str, count: usize) -> Vec<String> {
    let path = |n: usize| dir.join(format!("{name}{n}")).display().to_string();
    let paths: Vec<String> = (1..=count).map(path).collect();
    let group = CreateGroup {
        level: Level::Raid1,
        chunk: 65536,
        journal: JournalMode::default(),
        checksums: true,
        spares: 0,
        volume: Some("v".into()),
    };
    let spec = CreateSpec { name: name.into(), allow_injection: false, group: Some(group) };
    open::create(spec, &paths, Some(SIZE), IoChoice::default(), false, &|_| {}).expect("an array");
    paths
}

/// Whether nobody has the disk open.
fn is_free(path: &str) -> bool {
    crate::runtime::build()
        .expect("a runtime")
        .block_on(async { open::open_now(path, IoChoice::Pread).is_ok() })
}

fn refused(options: ServeOptions) -> StartError {
    DataThread::start(options).err().expect("a refusal")
}

#[test]
fn an_array_in_memory_is_served_until_the_stop() {
    let dir = tempfile::tempdir().expect("a directory");
    let paths = vec!["memory:32MiB".into(), "memory:32MiB".into()];
    let (thread, notes) = DataThread::start(options(dir.path(), paths)).expect("started");
    assert!(notes.iter().any(|note| note.contains("in memory")), "{notes:?}");
    let [NbdAddr::Unix(socket)] = &thread.nbd_addresses()[..] else { panic!("one address") };
    let stream = UnixStream::connect(socket).expect("it listens");
    let mut client = Client::connect(stream, &ClientOptions::new("memory")).expect("the volume");
    client.write(5, b"hello", false).expect("written");
    let mut read = [0; 5];
    client.read(5, &mut read).expect("read");
    assert_eq!(&read, b"hello");
    let sessions = thread.run_blocking(|context| async move { context.sessions() });
    assert_eq!(sessions, Ok(1));
    thread.stop_blocking().expect("a clean stop");
    thread.stop_blocking().expect("the same end for all who ask");
    assert!(!socket.exists());
    assert_eq!(thread.run_blocking(|_| async {}), Err(Stopped));
}

#[test]
fn what_cannot_be_served_is_refused_and_everything_is_let_go() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let mixed = vec!["memory:32MiB".into(), dir.join("x").display().to_string()];
    assert!(matches!(refused(options(dir, mixed)), StartError::MixedMemory(_)));
    let nothing = refused(options(dir, vec![dir.join("x").display().to_string()]));
    assert!(
        matches!(&nothing, StartError::NoDisks(why) if why.contains("/x: no such")),
        "{nothing}"
    );

    let paths = mirror(dir, "a", 2);
    let half = refused(options(dir, paths[..1].to_vec()));
    assert!(matches!(half, StartError::Assemble(_)), "{half}");
    let mut both = mirror(dir, "b", 2);
    both.extend(paths.clone());
    let two = refused(options(dir, both.clone()));
    assert!(matches!(two, StartError::Assemble(_)), "{two}");
    assert!(both.iter().all(|path| is_free(path)), "closed again");
    assert!(!dir.join("nbd").exists(), "the socket too");
}

#[test]
fn a_start_that_waits_for_disks_can_be_given_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let waits = ServeOptions {
        wait_s: 3600,
        ..options(dir.path(), vec![dir.path().join("x").display().to_string()])
    };
    waits.abort.store(true, Ordering::Release);
    assert!(matches!(refused(waits), StartError::Aborted));
}

#[test]
fn disks_are_taken_and_let_go_and_a_refusal_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let paths = mirror(dir, "a", 2);
    let (thread, _) = DataThread::start(options(dir, paths.clone())).expect("started");
    assert!(!is_free(&paths[0]), "owned while it is served");

    let new = dir.join("new").display().to_string();
    let add = |size: u64| {
        let path = new.clone();
        let added = thread.run_blocking(move |context| async move {
            context.add_disk(&path, DiskRole::Spare, Some(size), false).await
        });
        added.expect("it runs")
    };
    let small = add(64 << 10).expect_err("too small");
    assert!(matches!(&small, DiskError::Command(_)), "{small}");
    assert!(!Path::new(&new).exists(), "what was made for it is gone");
    let number = add(SIZE).expect("a spare");
    assert!(!is_free(&new));

    let remove = |disk: DiskNumber| {
        let removed =
            thread.run_blocking(move |context| async move { context.remove_disk(disk).await });
        removed.expect("it runs")
    };
    remove(DiskNumber(1)).expect_err("a member");
    assert!(!is_free(&paths[0]), "kept after a refusal");
    remove(number).expect("unused");
    assert!(is_free(&new), "others may have it");
    thread.stop_blocking().expect("a clean stop");
    assert!(paths.iter().all(|path| is_free(path)));
}

#[test]
fn a_disk_that_this_server_holds_open_comes_back_by_its_path() {
    let dir = tempfile::tempdir().expect("a directory");
    let paths = mirror(dir.path(), "a", 2);
    let (thread, _) = DataThread::start(options(dir.path(), paths.clone())).expect("started");
    let (second, first) = (paths[1].clone(), paths[0].clone());
    let states = thread.run_blocking(move |context| async move {
        context.array.fail_disk(DiskNumber(2)).await.expect("one is enough");
        let wrong = context.readd_disk(DiskNumber(2), Some(&first)).await;
        wrong.expect_err("that is disk 1");
        let before = context.array.report().disks[1].state;
        let roundabout = second.replace("/a2", "/./a2");
        context.readd_disk(DiskNumber(2), Some(&roundabout)).await.expect("the disk that left");
        (before, context.array.report().disks[1].state)
    });
    let (before, after) = states.expect("it runs");
    assert_eq!(before, DiskState::Failed);
    assert!(matches!(after, DiskState::InSync | DiskState::Rebuilding), "{after:?}");
    thread.stop_blocking().expect("a clean stop");
    assert!(paths.iter().all(|path| is_free(path)));
}

#[test]
fn a_disk_that_the_array_does_not_take_is_let_go_untouched() {
    let dir = tempfile::tempdir().expect("a directory");
    let paths = mirror(dir.path(), "a", 2);
    let start = |paths: &[String], choose: Option<DiskNumber>| {
        let assemble = AssembleOptions { degraded: true, choose, ..AssembleOptions::default() };
        let options = ServeOptions { assemble, ..options(dir.path(), paths.to_vec()) };
        DataThread::start(options).expect("started").0
    };
    // Each half goes on without the other.
    start(&paths[..1], None).stop_blocking().expect("a clean stop");
    start(&paths[1..], None).stop_blocking().expect("a clean stop");
    let before = std::fs::read(&paths[1]).expect("the file");
    let thread = start(&paths, Some(DiskNumber(1)));
    assert!(is_free(&paths[1]), "it diverged");
    thread.stop_blocking().expect("a clean stop");
    assert!(std::fs::read(&paths[1]).expect("the file") == before, "no byte changed");
}
