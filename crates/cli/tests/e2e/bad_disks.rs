//! Disks that are unfit, belong to somebody, or are damaged: each is named, and no byte changes.

use std::process::Command;

use forestall_engine::BLOCK_SIZE;
use forestall_nbd::{Errno, RequestError};

use crate::tools;
use crate::util::*;

#[test]
fn too_few_disks_for_a_level() {
    let dir = Dir::new();
    for (level, disks) in [("1", 1), ("5", 2), ("6", 3), ("10", 3)] {
        let refused = dir.try_create(&dir.disks(disks), "16MiB", &["--level", level]).refused(&[]);
        assert!(
            refused.contains(&format!("RAID{level}"))
                || refused.contains(&format!("level {level}")),
            "{refused}"
        );
        assert!(!dir.path("d1").exists(), "a file of a refused array is left behind");
    }
    let refused = dir
        .try_create(&dir.disks(3), "16MiB", &["--level", "5", "--spares", "3"])
        .refused(&["spares"]);
    assert!(refused.contains('3'), "{refused}");
    dir.try_create(&dir.disks(1), "1MiB", &[]).refused(&[&dir.disk(1)]);
    run(&mut forestall(&["create", "vault", &dir.disk(1)])).refused(&[&dir.disk(1), "--size"]);
    run(&mut forestall(&["create", "vault", dir.root().to_str().expect("text")]))
        .refused(&["neither a regular file"]);
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
    for (number, size) in [(1, 64), (2, 64), (3, 48)] {
        std::fs::File::create(dir.disk(number))
            .expect("a new file")
            .set_len(size * MIB)
            .expect("sparse");
    }
    let disks = dir.disks(3);
    let create = |more: &[&str]| {
        run(forestall(&["create", "vault"]).args(&disks).args(["--level", "1"]).args(more))
    };
    create(&["--spares", "1"]).refused(&["spare", &disks[2], "MiB", "usable"]);
    for disk in &disks {
        assert!(contents(disk).iter().all(|b| *b == 0), "a refused create changed {disk}");
    }
    run(forestall(&["create", "vault"]).args(&disks[..2]).args(["--level", "1"])).ok();
    let server = dir.serve(2);
    server.run(&["disk", "add", &disks[2]]).refused(&[&disks[2], "MiB", "usable"]);
    server.ok(&["disk", "add", &disks[2], "--role", "free"]);
    server.run(&["replace", "1", "--with", "3"]).refused(&["disk 3", "MiB", "usable"]);
}

#[test]
fn the_same_disk_twice_is_refused() {
    let dir = Dir::new();
    let twice = [dir.disk(1), dir.disk(2), dir.disk(1)];
    dir.try_create(&twice, "16MiB", &["--level", "5"]).refused(&[&dir.disk(1), "twice"]);
    assert!(
        !dir.path("d1").exists() && !dir.path("d2").exists(),
        "files of a refused array are left behind"
    );
    let link = dir.text("link");
    std::os::unix::fs::symlink(dir.disk(1), &link).expect("a link to what will be made");
    dir.create(3, "16MiB", &[]);
    let words = [dir.disk(1), link.clone(), "same disk".into()];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    dir.serve_refused(&[dir.disks(3), vec![link.clone()]].concat(), &[], &words);
    run(&mut forestall(&["destroy", &dir.disk(1), &link])).refused(&words);
    let server = dir.serve(3);
    for path in [&dir.disk(2), &link] {
        let number = if *path == link { "disk 1" } else { "disk 2" };
        server.run(&["disk", "add", path]).refused(&[path, number, "of this array already"]);
    }
    server
        .run(&["group", "create", "--level", "5", "--disks", "1,2,1"])
        .refused(&["disk 1", "twice"]);
    server.run(&["group", "create", "--level", "5", "--disks", "1,2,7"]).refused(&["disk 7"]);
}

#[test]
fn a_file_system_is_never_overwritten_without_force() {
    if !tools::have(&["mkfs.ext4"], "foreign data on a disk") {
        return;
    }
    let dir = Dir::new();
    for number in 1..=3 {
        std::fs::File::create(dir.disk(number))
            .expect("a new file")
            .set_len(32 * MIB)
            .expect("sparse");
    }
    run(Command::new("mkfs.ext4").args(["-q", "-F", &dir.disk(2)])).ok();
    std::fs::write(dir.disk(4), noise(1, 20 << 20)).expect("written");
    let before: Vec<Vec<u8>> = (1..=4).map(|n| contents(dir.disk(n))).collect();
    let same = |numbers: std::ops::RangeInclusive<u32>| {
        for number in numbers {
            assert_same(
                &contents(dir.disk(number)),
                &before[number as usize - 1],
                "a refused disk changed",
            );
        }
    };
    let create = |disks: &[String], more: &[&str]| {
        run(forestall(&["create", "vault", "--level", "1"]).args(disks).args(more))
    };
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

#[test]
fn a_disk_that_was_cut_short_or_wiped_is_told_from_one_that_is_missing() {
    let dir = Dir::new();
    dir.create(3, "16MiB", &["--level", "5"]);
    let server = dir.serve(3);
    let data = server.fill("vault", 5);
    server.stop();
    let disk = std::fs::OpenOptions::new().write(true).open(dir.disk(2)).expect("it is a file");
    for (len, why) in [(8 * MIB, "it was cut short: it had 16 MiB"), (0, "no Forestall label")] {
        disk.set_len(len).expect("cut");
        let server = dir.serve(3);
        let problem = server.status()["problems"][0]["what"].to_string();
        for words in [&dir.disk(2), "cannot be used", why] {
            assert!(problem.contains(words), "{words} in {problem}");
        }
        server.verify("vault", &data, "without the disk");
        server.stop();
        assert_eq!(disk.metadata().expect("still there").len(), len, "left alone");
    }
}

#[test]
fn a_map_that_is_damaged_on_every_member_is_named_with_the_way_out() {
    let dir = Dir::new();
    dir.create(3, "16MiB", &["--level", "5"]);
    for (disk, name) in
        dir.disks(3).iter().flat_map(|d| [(d, "unwritten map 0"), (d, "unwritten map 1")])
    {
        let map = region(disk, name);
        edit(disk, map.start, |bytes| bytes.fill(0xee), (map.end - map.start) as usize);
    }
    let before: Vec<Vec<u8>> = dir.disks(3).iter().map(contents).collect();
    let words = ["group 1", "unwritten map is damaged", "image", "--force"];
    dir.serve_refused(&dir.disks(3), &[], &words);
    for (disk, before) in dir.disks(3).iter().zip(&before) {
        assert_same(&contents(disk), before, "a refused start changed a disk");
    }
}

#[test]
fn what_could_not_be_opened_is_told_with_a_refusal() {
    let dir = Dir::new();
    dir.create(2, "16MiB", &["--level", "1"]);
    let typed = dir.text("d2 by mistake");
    dir.serve_refused(&[dir.disk(1), typed.clone()], &[], &[&typed, "disk 2", "--degraded"]);
    dir.serve_refused(&[dir.disk(1), dir.disk(1)], &[], &["given twice", "leave one"]);
    dir.serve_refused(
        &[],
        &["--scan", dir.root().to_str().expect("text"), &dir.disk(1)],
        &[&format!("{}: cannot look for disks", dir.disk(1)), "--scan takes folders"],
    );
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
    let kept = |number: u32| dir.text(&format!("kept{number}"));
    (1..=3).for_each(|number| copy(&dir.disk(number), &kept(number)));
    let places = ["label 0", "label 1", "configuration 0", "configuration 1"].map(|name| {
        let start = region(&dir.disk(2), name).start;
        // Magic, checksum, and something in the middle.
        [0, 13, 130].map(|at| (name, start + at))
    });
    for (name, at) in places.into_iter().flatten() {
        (1..=3).for_each(|number| copy(&kept(number), &dir.disk(number)));
        edit(&dir.disk(2), at, |byte| byte[0] ^= 4, 1);
        let look = || run(&mut forestall(&["inspect", "--json", &dir.disk(2)])).exits(0).json();
        assert_ne!(look()["damage"], serde_json::json!([]), "{name} at {at}");
        let server = dir.serve(3);
        assert_eq!(server.health(), "healthy", "{name} at {at}");
        let notes = server.disk(2)["notes"].to_string();
        let word = if name.starts_with("label") { "label" } else { "configuration slot" };
        assert!(notes.contains(word), "{name} at {at}: status says {notes}");
        server.ok(&["disk", "fail", "1"]);
        server.verify("vault", &data, &format!("{name} flipped at {at}, and disk 2 is needed"));
        server.stop();
        assert_eq!(look()["damage"], serde_json::json!([]), "{name} at {at} was not mended");
    }
}

#[test]
fn a_full_host_file_system_is_a_write_error_and_loses_nothing() {
    let test = "a full host file system";
    if !tools::root(test) || !tools::have(&["mount", "umount"], test) {
        return;
    }
    for (level, members) in [("0", 1), ("5", 3), ("1", 2)] {
        let dir = Dir::new();
        let small = Mounted::tmpfs(&dir.text("small"), "16M");
        // The first disk lies on a file system with less room than its size.
        let mut disks = dir.disks(members);
        disks[0] = format!("{}/d1", small.0);
        for disk in &disks {
            std::fs::File::create(disk).expect("a new file").set_len(48 * MIB).expect("sparse");
        }
        run(forestall(&["create", "vault", "--level", level]).args(&disks)).ok();
        let server = dir.serve_with(&disks, &[]);
        let mut client = server.connect("vault");
        let data = noise(9, client.export().size);
        let full = data.chunks(MIB as usize).enumerate().find_map(|(index, piece)| {
            let refused = client.write(index as u64 * MIB, piece, false).err()?;
            Some((index * MIB as usize, refused))
        });
        let (kept, refused) =
            full.unwrap_or_else(|| panic!("level {level}: {} bytes fit into 16 MiB", data.len()));
        let no_space = matches!(refused, RequestError::Refused { errno: Errno::NoSpc, .. });
        assert!(no_space, "level {level}: {refused}");
        client.flush().expect("what was answered can be made durable");
        assert_eq!(
            server.health(),
            "healthy",
            "level {level}: a full file system is no broken disk"
        );
        let same = |server: &Server, until: usize, what: &str| {
            assert_same(
                &server.read_all("vault")[..until],
                &data[..until],
                &format!("level {level}, {what}"),
            );
        };
        same(&server, kept, "written before");
        client.write(0, &data[..8192], true).expect("where there is room already, writing goes on");
        same(&server, kept, "rewritten");
        // Room is made while the server runs, and everything goes on.
        run(Command::new("mount").args(["-o", "remount,size=64M", &small.0])).ok();
        for (index, piece) in data.chunks(MIB as usize).enumerate().skip(kept / MIB as usize) {
            client.write(index as u64 * MIB, piece, false).expect("there is room again");
        }
        client.flush().expect("flushed");
        same(&server, data.len(), "all of it");
        server.stop();
        let server = dir.serve_with(&disks, &[]);
        same(&server, data.len(), "after a restart");
    }
}

#[test]
fn a_limit_of_file_sizes_is_a_write_error_and_loses_nothing() {
    if !tools::have(&["prlimit"], "a limit of file sizes") {
        return;
    }
    for io in ["uring", "pread"] {
        let dir = Dir::new();
        dir.create(3, "24MiB", &["--level", "5"]);
        let server = dir.serve_with(&dir.disks(3), &["--io", io]);
        let limit = |bytes: &str| {
            let pid = server.pid().to_string();
            run(Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:")])).ok();
        };
        limit(&(12 * MIB).to_string());
        let mut client = server.connect("vault");
        let data = noise(11, client.export().size);
        let mut pieces = data.chunks(MIB as usize).zip((0..).step_by(MIB as usize));
        let refused =
            pieces.find_map(|(piece, at)| Some((at, client.write(at, piece, false).err()?)));
        let (kept, refused) = refused.expect("the files may not grow to their size");
        let no_space = matches!(refused, RequestError::Refused { errno: Errno::NoSpc, .. });
        assert!(no_space, "{io}: {refused}");
        client.flush().expect("what was answered can be made durable");
        assert_eq!(server.health(), "healthy", "{io}: a limit is no broken disk");
        assert_same(&server.read_all("vault")[..kept as usize], &data[..kept as usize], io);
        limit("unlimited");
        for (piece, at) in data.chunks(MIB as usize).zip((0..).step_by(MIB as usize)) {
            client.write(at, piece, false).expect("there is no limit any more");
        }
        drop(client);
        server.verify("vault", &data, io);
        server.stop();
    }
}

/// A mount that ends with its test.
struct Mounted(String);

impl Mounted {
    fn tmpfs(at: &str, size: &str) -> Self {
        std::fs::create_dir(at).expect("a new folder");
        run(Command::new("mount").args([
            "-t",
            "tmpfs",
            "-o",
            &format!("size={size}"),
            "forestall-test",
            at,
        ]))
        .ok();
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: whoever still has it open is being killed.
        let _ = Command::new("umount").args(["-l", &self.0]).status();
    }
}
