//! The same behaviour from every backend, on real files.

use std::future::poll_fn;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::task::Poll;

use compio::runtime::Runtime;
use forestall_disk::{
    Access, AnyDisk, MemoryDisk, OwnedFile, PreadDisk, UringDisk, UringError, create_sparse,
};
use forestall_engine::{Buf, Disk, FaultKind};

const SIZE: u64 = 8 << 20;

/// Runs `test` on each backend over a file of its own; the path is `None` for memory.
fn each_backend(test: impl AsyncFn(&AnyDisk, Option<&Path>)) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str| -> (PathBuf, OwnedFile) {
        let path = dir.path().join(name);
        create_sparse(&path, SIZE).expect("a new file");
        let owned = OwnedFile::open(&path, Access::ReadWrite).expect("nobody has it");
        (path, owned)
    };
    Runtime::new().expect("a runtime").block_on(async {
        test(&AnyDisk::Memory(MemoryDisk::new(SIZE)), None).await;
        let (path, owned) = file("pread");
        test(&AnyDisk::Pread(PreadDisk::new(owned).expect("threads")), Some(&path)).await;
        let (path, owned) = file("uring");
        match UringDisk::new(owned) {
            Ok(disk) => test(&AnyDisk::Uring(disk), Some(&path)).await,
            Err(UringError::Unavailable(_)) => eprintln!("NOT TESTED: io_uring is not available"),
            Err(UringError::Io(error)) => panic!("{error}"),
        }
    });
}

async fn read(disk: &AnyDisk, offset: u64, len: usize) -> Buf {
    let (result, buf) = disk.read(offset, Buf::zeroed(len)).await;
    assert_eq!(result, Ok(()));
    buf
}

fn pattern(len: usize) -> Buf {
    let bytes: Vec<u8> = (0..len).map(|i| (i % 253 + 1) as u8).collect();
    Buf::copy_of(&bytes)
}

#[test]
fn what_was_written_is_read_and_the_rest_is_zero() {
    each_backend(async |disk, path| {
        assert_eq!(disk.size(), SIZE);
        let data = pattern(3 << 20);
        assert_eq!(disk.write(4096, data.clone()).await, Ok(()));
        assert_eq!(disk.flush().await, Ok(()));
        let seen = read(disk, 0, (3 << 20) + 8192).await;
        assert!(seen[..4096].iter().chain(&seen[4096 + (3 << 20)..]).all(|byte| *byte == 0));
        assert!(seen[4096..4096 + (3 << 20)] == data[..]);
        if let Some(path) = path {
            let mut on_file = vec![0; data.len()];
            std::fs::File::open(path)
                .expect("the file is there")
                .read_exact_at(&mut on_file, 4096)
                .expect("and long enough");
            assert!(on_file == data[..]);
        }
        // A view that starts anywhere can be written, too.
        assert_eq!(disk.write(0, data.slice(1..4097)).await, Ok(()));
        assert!(read(disk, 0, 4096).await[..] == data[1..4097]);
    });
}

#[test]
fn many_requests_at_once_do_not_mix() {
    each_backend(async |disk, _| {
        let mut writes: Vec<_> = (0..200u64)
            .map(|n| Box::pin(disk.write(n * 4096, Buf::copy_of(&[n as u8; 4096]))))
            .collect();
        poll_fn(|cx| {
            writes.retain_mut(|write| match write.as_mut().poll(cx) {
                Poll::Ready(result) => {
                    assert_eq!(result, Ok(()));
                    false
                }
                Poll::Pending => true,
            });
            if writes.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        for n in 0..200u64 {
            assert!(read(disk, n * 4096, 4096).await.iter().all(|byte| *byte == n as u8));
        }
    });
}

#[test]
fn a_write_that_nobody_waits_for_is_whole() {
    each_backend(async |disk, path| {
        let data = pattern(4 << 20);
        let mut write = Box::pin(disk.write(0, data.clone()));
        let _begun = poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx))).await;
        drop(write);
        let Some(path) = path else { return };
        // Every byte arrives without anybody asking: the test waits for the last one, then looks at all.
        let file = std::fs::File::open(path).expect("the file is there");
        let mut seen = vec![0; data.len()];
        while seen != data[..] {
            compio::time::sleep(std::time::Duration::from_millis(1)).await;
            file.read_exact_at(&mut seen, 0).expect("long enough");
        }
    });
}

#[test]
fn a_discarded_range_gives_its_space_back() {
    each_backend(async |disk, path| {
        assert_eq!(disk.write(0, pattern(2 << 20)).await, Ok(()));
        assert_eq!(disk.flush().await, Ok(()));
        let blocks = || path.map(|path| path.metadata().expect("the file is there").blocks());
        let before = blocks();
        assert_eq!(disk.discard(0, 1 << 20).await, Ok(()));
        assert!(read(disk, 1 << 20, 1 << 20).await[..] == pattern(2 << 20)[1 << 20..]);
        let after = blocks();
        assert!(after.is_none() || after < before, "{after:?} of {before:?} blocks");
    });
}

#[test]
fn a_file_that_was_cut_is_a_bad_medium_not_a_panic() {
    each_backend(async |disk, path| {
        let Some(path) = path else { return };
        let file = std::fs::OpenOptions::new().write(true).open(path).expect("the file is there");
        file.set_len(4096).expect("it can be cut");
        assert_eq!(disk.read(0, Buf::zeroed(4096)).await.0, Ok(()));
        let fault = disk.read(0, Buf::zeroed(8192)).await.0.expect_err("half of it is gone");
        assert_eq!(fault.kind, FaultKind::Medium);
    });
}
