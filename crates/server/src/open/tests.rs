//! What is refused stays as it was.

use std::future::Future;
use std::task::Poll;

use super::*;

fn in_runtime<T>(work: impl Future<Output = T>) -> T {
    runtime::build().expect("a runtime").block_on(work)
}

async fn one_new(
    path: &str,
    io: IoChoice,
    size: Option<u64>,
    force: bool,
) -> Result<New, OpenError> {
    let new = open_new(&[path], io, size, force, &|_| {}).await?;
    Ok(new.into_iter().next().expect("one was opened"))
}

#[test]
fn sizes_of_memory_disks() {
    assert_eq!(memory_size("/dev/sda"), None);
    assert_eq!(memory_size("memory:512MiB"), Some(Ok(512 << 20)));
    assert_eq!(memory_size("memory:18GB"), Some(Ok(18_000_000_000)));
    assert_eq!(memory_size("memory:4096"), Some(Ok(4096)));
    for text in ["memory:", "memory:x", "memory:1 MiB", "memory:-1", "memory:99999999TiB"] {
        assert!(memory_size(text).is_some_and(|size| size.is_err()), "{text}");
    }
}

#[test]
fn a_missing_file_needs_a_size_and_a_refused_one_is_not_left_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("disk").display().to_string();
    in_runtime(async {
        let error = one_new(&path, IoChoice::Pread, None, false).await.err().expect("no size");
        assert!(matches!(error, OpenError::NoSize { .. }), "{error}");
        let opened = one_new(&path, IoChoice::Pread, Some(8 << 20), false).await;
        let opened = opened.expect("made sparse").keep();
        assert_eq!(opened.disk.size(), 8 << 20);
        let second = open_now(&path, IoChoice::Pread).err().expect("owned");
        assert!(matches!(second, OpenError::Own(OwnError::InUse { .. })), "{second}");
        let wait = Duration::from_secs(60);
        let mut waiting = Box::pin(open_within(&path, IoChoice::Pread, wait));
        let first = std::future::poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx))).await;
        assert!(first.is_pending(), "a dying server may hold it");
        drop(opened);
        let opened = waiting.await.expect("it was let go");
        let mut reading = Box::pin(open_read_only(&path));
        let first = std::future::poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx))).await;
        assert!(first.is_pending(), "who looks waits as long");
        drop(opened);
        drop(reading.await.expect("it was let go"));

        let small = one_new(&path, IoChoice::Pread, Some(9 << 20), false).await;
        assert!(matches!(small.err(), Some(OpenError::Small { .. })));
        assert!(Path::new(&path).exists(), "a file that was there stays");

        let refused = dir.path().join("refused");
        let name = refused.display().to_string();
        let new = one_new(&name, IoChoice::Pread, Some(64 << 10), false).await.expect("made");
        assert!(refused.exists());
        drop(new);
        assert!(!refused.exists(), "not kept, so it goes again");
    });
}

#[test]
fn foreign_data_is_named_and_kept_unless_forced() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("disk");
    let mut image = vec![0; 4 << 20];
    image[1080..1082].copy_from_slice(&[0x53, 0xef]);
    std::fs::write(&path, &image).expect("a file");
    let name = path.display().to_string();
    in_runtime(async {
        for io in [IoChoice::Uring, IoChoice::Pread] {
            let error = one_new(&name, io, None, false).await.err().expect("foreign");
            assert!(error.to_string().contains("ext2/3/4"), "{error}");
        }
        one_new(&name, IoChoice::Uring, None, true).await.expect("forced");
    });
    assert!(std::fs::read(&path).expect("still there") == image, "looking changes nothing");
    let error = destroy(&[name], IoChoice::Pread, &|_| {}).expect_err("not ours");
    assert!(matches!(error, OpenError::NotOurs { .. }), "{error}");
}

#[test]
fn a_destroyed_disk_can_be_given_to_an_array_without_force() {
    const SIZE: u64 = 8 << 20;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("disk");
    let name = path.display().to_string();
    for grown in [0, 1 << 20] {
        let spec = CreateSpec { name: "vault".into(), allow_injection: false, group: None };
        create(spec, std::slice::from_ref(&name), Some(SIZE), IoChoice::Pread, true, &|_| {})
            .expect("labelled");
        // As if hosts had filled it.
        let mut image = std::fs::read(&path).expect("readable");
        let layout = Label::decode(&image[..BLOCK_SIZE as usize]).expect("a label").layout;
        let data = layout.data.offset as usize..layout.label_copy.offset as usize;
        image[data].fill(0xa5);
        image.resize((SIZE + grown) as usize, 0xa5);
        std::fs::write(&path, &image).expect("written");
        destroy(std::slice::from_ref(&name), IoChoice::Pread, &|_| {}).expect("wiped");
        in_runtime(async {
            let new = one_new(&name, IoChoice::Pread, None, false).await;
            new.map(|_| ()).expect("nobody's data");
        });
        let file = std::fs::OpenOptions::new().write(true).open(&path).expect("the disk");
        file.set_len(SIZE).expect("its old size");
        let opened = open_now(&name, IoChoice::Pread).expect("free");
        assert_eq!(in_runtime(opened.label()).expect("read"), Err(LabelError::NotOurs));
        drop(opened);
        std::fs::remove_file(&path).expect("gone");
    }
}

#[test]
fn destroying_a_large_disk_takes_no_space_and_leaves_its_head_and_end_blank() {
    use std::os::unix::fs::{FileExt, MetadataExt};
    const SIZE: u64 = 1 << 40;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("disk");
    let name = [path.display().to_string()];
    let spec = CreateSpec { name: "vault".into(), allow_injection: false, group: None };
    create(spec, &name, Some(SIZE), IoChoice::Pread, false, &|_| {}).expect("labelled");
    destroy(&name, IoChoice::Pread, &|_| {}).expect("wiped");
    let file = std::fs::File::open(&path).expect("still there");
    // Its checksums alone have room for a gigabyte.
    let taken = file.metadata().expect("metadata").blocks() * 512;
    assert!(taken < 64 << 20, "{taken} bytes are taken");
    let mut head = vec![1; 8 << 20];
    file.read_exact_at(&mut head, 0).expect("its head");
    let mut end = vec![1; 1 << 20];
    file.read_exact_at(&mut end, SIZE - (1 << 20)).expect("its end");
    assert!(head.iter().chain(&end).all(|byte| *byte == 0));
}
