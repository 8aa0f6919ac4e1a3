//! Block devices as disks: loop devices over sparse files are served, refused while in use, rebuilt, and given their space back.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use crate::tools;
use crate::util::*;

/// A loop device over a file; detached at the end.
struct Loop(String);

impl Loop {
    fn over(file: &str) -> Self {
        let made = run(Command::new("losetup").args(["--find", "--show", file])).ok();
        Self(made.trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

/// Bytes that a file really uses.
fn used(file: &str) -> u64 {
    std::fs::metadata(file).expect("a backing file").blocks() * 512
}

#[test]
fn block_devices_are_disks_like_any_other() {
    const TEST: &str = "block devices as disks";
    if !tools::root(TEST)
        || !tools::have(&["losetup", "mkfs.ext4", "mount"], TEST)
        || !tools::device("/dev/loop-control", TEST)
    {
        return;
    }
    let dir = Dir::new();
    let files = dir.disks(5);
    let loops: Vec<Loop> = files
        .iter()
        .map(|file| {
            let made = std::fs::File::create(file).and_then(|f| f.set_len(32 * MIB));
            made.expect("a backing file");
            Loop::over(file)
        })
        .collect();
    let devices: Vec<String> = loops.iter().map(|l| l.0.clone()).collect();

    // A mounted device is never touched, not even by force; one with a file system only by force.
    run(Command::new("mkfs.ext4").args(["-q", "-F", &devices[4]])).ok();
    let at = dir.path("mounted");
    std::fs::create_dir(&at).expect("a mount point");
    run(Command::new("mount").arg(&devices[4]).arg(&at)).ok();
    let more = ["--level", "5", "--spares", "1"];
    let forced = dir.try_create(&devices, "32MiB", &[&more[..], &["--force"]].concat());
    run(Command::new("umount").arg(&at)).ok();
    forced.refused(&["in use", &devices[4]]);
    dir.try_create(&devices, "32MiB", &more).refused(&["ext", "--force", &devices[4]]);
    dir.try_create(&devices, "32MiB", &[&more[..], &["--force"]].concat()).ok();

    let server = dir.serve_with(&devices, &[]);
    match dir.try_serve_at("other-", &devices, &[]) {
        Ok(_) => panic!("a second server on the same devices"),
        Err(run) => run.refused(&["in use", "/dev/loop"]),
    };
    let data = server.fill("vault", 11);
    server.ok(&["disk", "fail", "2"]);
    server.healed();
    server.verify("vault", &data, "rebuilt on a block device");
    server.stop();

    let mut order = devices.clone();
    order.reverse();
    let server = dir.serve_with(&order, &[]);
    server.verify("vault", &data, "in another order, after a restart");
    let full = used(&files[0]);
    let size = data.len() as u64;
    let mut client = server.connect("vault");
    client.trim(0, size, false).expect("a trim");
    client.flush().expect("a flush");
    drop(client);
    wait_for("the space to be given back", || (used(&files[0]) < full / 4).then_some(()));
    server.stop();
}
