//! ext4 and xfs on an export, through nbdfuse and a loop device: files copied, trimmed, remounted, checked; again with as many members
//! gone as the level tolerates.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::tools;
use crate::util::*;

struct FileSystem {
    name: &'static str,
    make: &'static [&'static str],
    check: &'static [&'static str],
}

const EXT4: FileSystem =
    FileSystem { name: "ext4", make: &["mkfs.ext4", "-q", "-F"], check: &["e2fsck", "-fn"] };
const XFS: FileSystem =
    FileSystem { name: "xfs", make: &["mkfs.xfs", "-q", "-f"], check: &["xfs_repair", "-n"] };

/// An export as a block device. Ends in order: mount, loop device, FUSE, and only then, elsewhere, the server.
struct Device {
    mounted: Option<PathBuf>,
    device: String,
    file: PathBuf,
    fuse: Option<Killed>,
}

impl Device {
    fn new(dir: &Dir, server: &Server, name: &str) -> Self {
        let (file, pid) = (dir.path(name), dir.path(&format!("{name}.pid")));
        fs::write(&file, b"").expect("a mount point");
        let mut command = Command::new("nbdfuse");
        command.arg("-P").arg(&pid).arg(&file).arg(server.uri("vault")).stdin(Stdio::null());
        let mut fuse = Killed::spawn(&mut command);
        wait_for("nbdfuse", || {
            assert!(fuse.0.try_wait().expect("our child").is_none(), "nbdfuse ended");
            pid.exists().then_some(())
        });
        let mut made = Self { mounted: None, device: String::new(), file, fuse: Some(fuse) };
        let looped = run(Command::new("losetup").args(["--find", "--show"]).arg(&made.file)).ok();
        looped.trim().clone_into(&mut made.device);
        made
    }

    fn mount(&mut self, at: &Path) {
        fs::create_dir_all(at).expect("a mount point");
        run(Command::new("mount").arg(&self.device).arg(at)).ok();
        self.mounted = Some(at.to_owned());
    }

    fn unmount(&mut self) {
        if let Some(at) = self.mounted.take() {
            run(Command::new("umount").arg(at)).ok();
        }
    }

    fn check(&self, system: &FileSystem) {
        let (program, flags) = system.check.split_first().expect("a program");
        run(Command::new(program).args(flags).arg(&self.device)).ok();
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(at) = self.mounted.take() {
            let _ = Command::new("umount").arg("-l").arg(at).status();
        }
        if !self.device.is_empty() {
            let _ = Command::new("losetup").args(["-d", &self.device]).status();
        }
        let _ = Command::new("fusermount3").arg("-uz").arg(&self.file).status();
        drop(self.fuse.take());
    }
}

/// Files of many sizes, in folders.
fn plant(root: &Path, seed: u64) {
    for number in 0..120_u64 {
        let folder = root.join(format!("s{seed}/f{}", number % 7));
        fs::create_dir_all(&folder).expect("a folder");
        let length = [0, 1, 511, 4096, 10_000, 65_537, 400_000][(number % 7) as usize] + number;
        fs::write(folder.join(format!("{number}")), noise(seed * 1000 + number, length))
            .expect("written");
    }
}

/// Every planted file that is there is as it was planted; answers how many there are.
fn grown(root: &Path, seed: u64) -> usize {
    let mut count = 0;
    for number in 0..120_u64 {
        let path = root.join(format!("s{seed}/f{}/{number}", number % 7));
        if let Ok(found) = fs::read(&path) {
            assert_same(
                &found,
                &noise(seed * 1000 + number, found.len() as u64),
                &path.display().to_string(),
            );
            assert!(found.len() as u64 >= number);
            count += 1;
        }
    }
    count
}

fn possible(system: &FileSystem) -> bool {
    let test = format!("{} on an export", system.name);
    tools::have(
        &["nbdfuse", "fusermount3", "losetup", "mount", "fstrim", system.make[0], system.check[0]],
        &test,
    ) && tools::root(&test)
        && tools::device("/dev/fuse", &test)
        && tools::device("/dev/loop-control", &test)
}

/// `size` is large enough for xfs, which wants 300 MiB.
fn lives_on(system: &FileSystem, level: &str, disks: u32, size: &str, lost: &[u32]) {
    if !possible(system) {
        return;
    }
    let dir = Dir::new();
    dir.create(disks, size, &["--level", level]);
    let server = dir.serve(disks);
    let root = dir.path("mnt");
    let mut device = Device::new(&dir, &server, "healthy");
    let (make, flags) = system.make.split_first().expect("a program");
    run(Command::new(make).args(flags).arg(&device.device)).ok();
    device.mount(&root);
    plant(&root, 1);
    plant(&root, 2);
    fs::remove_dir_all(root.join("s1/f6")).expect("removed");
    let trimmed = run(Command::new("fstrim").arg("-v").arg(&root)).ok();
    assert!(trimmed.contains("trimmed"), "{trimmed}");
    device.unmount();
    device.check(system);
    device.mount(&root);
    assert_eq!((grown(&root, 1), grown(&root, 2)), (103, 120));

    for disk in lost {
        server.ok(&["disk", "fail", &disk.to_string()]);
    }
    assert_eq!(server.health(), "degraded");
    plant(&root, 3);
    device.unmount();
    drop(device);
    // Nothing from any cache: a new device, without the lost members.
    let mut device = Device::new(&dir, &server, "degraded");
    device.check(system);
    device.mount(&root);
    assert_eq!((grown(&root, 1), grown(&root, 2), grown(&root, 3)), (103, 120, 120));
    run(Command::new("fstrim").arg(&root)).ok();
    device.unmount();
    device.check(system);
    drop(device);
    server.stop();
}

#[test]
fn ext4_on_raid5() {
    lives_on(&EXT4, "5", 4, "64MiB", &[2]);
}

#[test]
fn ext4_on_raid6() {
    lives_on(&EXT4, "6", 5, "64MiB", &[1, 4]);
}

#[test]
fn ext4_on_raid1() {
    lives_on(&EXT4, "1", 3, "128MiB", &[1, 2]);
}

#[test]
fn ext4_on_raid10() {
    lives_on(&EXT4, "10", 4, "96MiB", &[2, 3]);
}

#[test]
fn xfs_on_raid5() {
    lives_on(&XFS, "5", 4, "160MiB", &[3]);
}

#[test]
fn xfs_on_raid6() {
    lives_on(&XFS, "6", 5, "160MiB", &[2, 5]);
}

#[test]
fn xfs_on_raid1() {
    lives_on(&XFS, "1", 2, "400MiB", &[1]);
}

#[test]
fn xfs_on_raid10() {
    lives_on(&XFS, "10", 4, "240MiB", &[1, 4]);
}
