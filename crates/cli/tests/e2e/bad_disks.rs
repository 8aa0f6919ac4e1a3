//! Disks that are unfit, belong to somebody, or are damaged: each is named, and no byte changes.

use std::process::Command;

use forestall_engine::BLOCK_SIZE;

use crate::tools;
use crate::util::*;

#[test]
fn too_few_disks_for_a_level() {
    let dir = Dir::new();
    for (level, disks) in [("1", 1), ("5", 2), ("6", 3), ("10", 3)] {
        let refused = dir.try_create(&dir.disks(disks), "16MiB", &["--level", level]).refused(&[]);
        assert!(refused.contains(&format!("RAID{level}")) || refused.contains(&format!("level {level}")), "{refused}");
        assert!(!dir.path("d1").exists(), "a file of a refused array is left behind");
    }
    let refused = dir.try_create(&dir.disks(3), "16MiB", &["--level", "5", "--spares", "3"]).refused(&["spares"]);
    assert!(refused.contains('3'), "{refused}");
    dir.try_create(&dir.disks(1), "1MiB", &[]).refused(&[&dir.disk(1)]);
    run(&mut forestall(&["create", "vault", &dir.disk(1)])).refused(&[&dir.disk(1), "--size"]);
    run(&mut forestall(&["create", "vault", dir.root().to_str().expect("text")])).refused(&["neither a regular file"]);
}

#[test]
fn differing_sizes_are_said_aloud() {
    let dir = Dir::new();
    for (number, size) in [(1, 64), (2, 96), (3, 80)] {
        let file = std::fs::File::create(dir.disk(number)).expect("a new file");
        file.set_len(size * MIB).expect("sparse");
    }
    let said = run(forestall(&["create", "vault"]).args(dir.disks(3)).args(["--level", "5"])).ok();
    assert!(said.contains("smallest usable size") && said.contains("2, 3"), "{said}");
    let server = dir.serve(3);
    let size = server.connect("vault").export().size;
    assert!(size <= 2 * 64 * MIB && size > 2 * 56 * MIB, "{size}");
    let data = server.fill("vault", 1);
    server.verify("vault", &data, "members of differing sizes");
}

#[test]
fn a_spare_that_is_too_small_is_refused() {
    let dir = Dir::new();
    for (number, size) in [(1, 64), (2, 64), (3, 63)] {
        std::fs::File::create(dir.disk(number)).expect("a new file").set_len(size * MIB).expect("sparse");
    }
    let disks = dir.disks(3);
    let create = |more: &[&str]| run(forestall(&["create", "vault"]).args(&disks).args(["--level", "1"]).args(more));
    create(&["--spares", "1"]).refused(&["spare", &disks[2], "usable bytes"]);
    for disk in &disks {
        assert!(contents(disk).iter().all(|b| *b == 0), "a refused create changed {disk}");
    }
    run(forestall(&["create", "vault"]).args(&disks[..2]).args(["--level", "1"])).ok();
    let server = dir.serve(2);
    server.run(&["disk", "add", &disks[2]]).refused(&[&disks[2], "usable bytes"]);
    server.ok(&["disk", "add", &disks[2], "--role", "free"]);
    server.run(&["replace", "1", "--with", "3"]).refused(&["disk 3", "usable bytes"]);
}

#[test]
fn the_same_disk_twice_is_refused() {
    let dir = Dir::new();
    let twice = [dir.disk(1), dir.disk(2), dir.disk(1)];
    dir.try_create(&twice, "16MiB", &["--level", "5"]).refused(&[&dir.disk(1), "twice"]);
    assert!(!dir.path("d1").exists() && !dir.path("d2").exists(), "files of a refused array are left behind");
    dir.create(3, "16MiB", &[]);
    let server = dir.serve(3);
    server.run(&["group", "create", "--level", "5", "--disks", "1,2,1"]).refused(&["disk 1", "twice"]);
    server.run(&["group", "create", "--level", "5", "--disks", "1,2,7"]).refused(&["disk 7"]);
    server.run(&["disk", "add", &dir.disk(2)]).refused(&[&dir.disk(2)]);
}

#[test]
fn a_file_system_is_never_overwritten_without_force() {
    if !tools::have(&["mkfs.ext4"], "foreign data on a disk") {
        return;
    }
    let dir = Dir::new();
    for number in 1..=3 {
        std::fs::File::create(dir.disk(number)).expect("a new file").set_len(32 * MIB).expect("sparse");
    }
    run(Command::new("mkfs.ext4").args(["-q", "-F", &dir.disk(2)])).ok();
    std::fs::write(dir.disk(4), noise(1, 20 << 20)).expect("written");
    let before: Vec<Vec<u8>> = (1..=4).map(|n| contents(dir.disk(n))).collect();
    let same = |numbers: std::ops::RangeInclusive<u32>| {
        for number in numbers {
            assert_same(&contents(dir.disk(number)), &before[number as usize - 1], "a refused disk changed");
        }
    };
    let create = |disks: &[String], more: &[&str]| run(forestall(&["create", "vault", "--level", "1"]).args(disks).args(more));
    create(&dir.disks(2), &[]).refused(&[&dir.disk(2), "ext", "--force"]);
    create(&[dir.disk(1), dir.disk(4)], &[]).refused(&[&dir.disk(4), "unknown kind", "--force"]);
    same(1..=4);
    create(&[dir.disk(1), dir.disk(3)], &[]).ok();
    let server = dir.serve_with(&[dir.disk(1), dir.disk(3)], &[]);
    server.run(&["disk", "add", &dir.disk(2)]).refused(&[&dir.disk(2), "ext", "--force"]);
    // Ours, but another array's.
    create(&[dir.disk(1), dir.disk(2)], &[]).refused(&[&dir.disk(1)]);
    same(2..=2);
    server.ok(&["disk", "add", &dir.disk(2), "--force"]);
    assert_eq!(server.disk(3)["state"], "spare");
    server.stop();
    create(&[dir.disk(1), dir.disk(3)], &[]).refused(&["array", "vault", "--force"]);
    dir.serve_with(&dir.disks(3), &[]).stop();
}

#[test]
fn a_label_of_a_newer_version_is_left_alone() {
    let dir = Dir::new();
    dir.create(3, "16MiB", &["--level", "5"]);
    for at in [0, 16 * MIB - BLOCK_SIZE] {
        edit(&dir.disk(2), at, newer, BLOCK_SIZE as usize);
    }
    let before: Vec<Vec<u8>> = dir.disks(3).iter().map(contents).collect();
    dir.serve_refused(&dir.disks(3), &[], &[&dir.disk(2), "newer"]);
    run(&mut forestall(&["create", "other", &dir.disk(2)])).refused(&[&dir.disk(2), "--force"]);
    let seen = run(&mut forestall(&["inspect", &dir.disk(2)])).exits(1).stdout;
    assert!(seen.contains("newer version"), "{seen}");
    for (disk, before) in dir.disks(3).iter().zip(&before) {
        assert_same(&contents(disk), before, "a refused start changed a disk");
    }
}

/// Makes a label one of the version after the next and seals it again.
fn newer(label: &mut [u8]) {
    use forestall_engine::format::codec::{CRC_AT, seal};
    label[8] += 1;
    seal(label, CRC_AT);
}

#[test]
fn a_flipped_bit_anywhere_in_label_or_configuration_is_survived_and_told() {
    let dir = Dir::new();
    dir.create(3, "16MiB", &["--level", "5"]);
    let server = dir.serve(3);
    let data = server.fill("vault", 3);
    server.stop();
    let kept = dir.text("kept");
    copy(&dir.disk(2), &kept);
    let mut places = Vec::new();
    for name in ["label 0", "label 1", "configuration 0", "configuration 1"] {
        let start = region(&dir.disk(2), name).start;
        // Magic, version, checksum, identity, the middle of what is used.
        places.extend([0, 9, 13, 50, 130].map(|at| (name, start + at)));
    }
    for (name, at) in places {
        copy(&kept, &dir.disk(2));
        edit(&dir.disk(2), at, |byte| byte[0] ^= 4, 1);
        let found = run(&mut forestall(&["inspect", "--json", &dir.disk(2)])).exits(0).json();
        assert_ne!(found["damage"], serde_json::json!([]), "{name} at {at}: {found}");
        let server = dir.serve(3);
        assert_eq!(server.health(), "healthy", "{name} at {at}");
        let notes = server.disk(2)["notes"].to_string();
        let word = if name.starts_with("label") { "label" } else { "configuration slot" };
        assert!(notes.contains(word), "{name} at {at}: status says {notes}");
        server.ok(&["disk", "fail", "1"]);
        server.verify("vault", &data, &format!("{name} flipped at {at}, and disk 2 is needed"));
        server.ok(&["disk", "readd", "1"]);
        server.healed();
        server.stop();
        let found = run(&mut forestall(&["inspect", "--json", &dir.disk(2)])).exits(0).json();
        assert_eq!(found["damage"], serde_json::json!([]), "{name} at {at} was not mended");
        copy(&dir.disk(2), &kept);
    }
}

#[test]
fn a_full_host_file_system_is_a_write_error_and_loses_nothing() {
    if !tools::root("a full host file system") || !tools::have(&["mount", "umount"], "a full host file system") {
        return;
    }
    let dir = Dir::new();
    let small = Mounted::tmpfs(&dir.text("small"), "24M");
    // Disk 2 lies on a file system with less room than its size.
    let disks = [dir.disk(1), format!("{}/d2", small.0), dir.disk(3)];
    for disk in &disks {
        std::fs::File::create(disk).expect("a new file").set_len(48 * MIB).expect("sparse");
    }
    run(forestall(&["create", "vault", "--level", "5", "--chunk", "16KiB"]).args(&disks)).ok();
    let server = dir.serve_with(&disks, &[]);
    // More than fits below: the disk is taken out, and every byte is still there.
    let data = server.fill("vault", 9);
    assert_eq!(server.disk(2)["state"], "failed");
    assert!(server.disk(2)["errors"]["writes"].as_u64() > Some(0));
    assert_eq!(server.health(), "degraded");
    server.verify("vault", &data, "a member's file system is full");
    server.stop();
    let server = dir.serve_with(&disks, &[]);
    server.verify("vault", &data, "after a restart");

    // All of a group on it: an error for the host, and what was acknowledged before stays.
    server.stop();
    let tiny = Mounted::tmpfs(&dir.text("tiny"), "8M");
    let lone = [format!("{}/d1", tiny.0)];
    std::fs::File::create(&lone[0]).expect("a new file").set_len(32 * MIB).expect("sparse");
    run(forestall(&["create", "lone", "--level", "0"]).args(&lone)).ok();
    let server = dir.serve_with(&lone, &[]);
    let mut client = server.connect("lone");
    let piece = noise(1, 2 << 20);
    client.write(0, &piece, true).expect("there is room for this");
    let refused = (1..14).find_map(|n| client.write(n * 2 * MIB, &piece, false).err());
    assert!(refused.is_some(), "28 MiB fit into 8");
    let mut found = vec![0; piece.len()];
    server.connect("lone").read(0, &mut found).expect("what was written answers");
    assert_same(&found, &piece, "what was there before");
    server.kill();
}

/// A mount that ends with its test.
struct Mounted(String);

impl Mounted {
    fn tmpfs(at: &str, size: &str) -> Self {
        std::fs::create_dir(at).expect("a new folder");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "forestall-test", at])).ok();
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: whoever still has it open is being killed.
        let _ = Command::new("umount").args(["-l", &self.0]).status();
    }
}
