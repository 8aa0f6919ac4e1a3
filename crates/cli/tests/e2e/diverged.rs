//! Halves, copies and strangers: what a start must tell apart (rules C4 to C6).

use crate::util::*;

#[test]
fn half_the_disks_missing_asks_first_and_names_them() {
    let dir = Dir::new();
    dir.create(2, "16MiB", &["--level", "1"]);
    let server = dir.serve(2);
    let data = server.fill("vault", 1);
    server.stop();
    let before = contents(dir.disk(1));
    dir.serve_refused(&[dir.disk(1)], &[], &["missing", &dir.disk(2), "--degraded", "--wait"]);
    assert_same(&contents(dir.disk(1)), &before, "a refused start changed the disk");
    let server = dir.serve_with(&[dir.disk(1)], &["--degraded"]);
    server.verify("vault", &data, "half of a mirror");
    // The list is one disk now: it starts by itself from here on.
    server.stop();
    let server = dir.serve_with(&[dir.disk(1)], &[]);
    server.verify("vault", &data, "half of a mirror, again");
}

#[test]
fn a_mirror_that_lost_a_disk_while_running_starts_by_itself() {
    let dir = Dir::new();
    dir.create(2, "16MiB", &["--level", "1"]);
    let server = dir.serve(2);
    server.ok(&["disk", "fail", "2"]);
    let data = server.fill("vault", 2);
    server.stop();
    let server = dir.serve_with(&[dir.disk(1)], &[]);
    server.verify("vault", &data, "the disk that stayed");
    server.stop();
    // The one that left knows that it was left only by others: alone it asks.
    dir.serve_refused(&[dir.disk(2)], &[], &["missing", &dir.disk(1)]);
}

#[test]
fn two_halves_that_ran_apart_are_named_and_never_joined() {
    let dir = Dir::new();
    dir.create(2, "16MiB", &["--level", "1"]);
    dir.serve(2).stop();
    let side = |number: u32, seed: u64| {
        let server = dir.serve_with(&[dir.disk(number)], &["--degraded"]);
        let data = server.fill("vault", seed);
        server.stop();
        data
    };
    let (first, second) = (side(1, 11), side(2, 22));
    let before = [contents(dir.disk(1)), contents(dir.disk(2))];
    dir.serve_refused(
        &dir.disks(2),
        &[],
        &["more than one way", "disk 1", "disk 2", &dir.disk(1), &dir.disk(2), " UTC", "--choose"],
    );
    for (number, before) in [1, 2].into_iter().zip(&before) {
        assert_same(&contents(dir.disk(number)), before, "a refused start changed a disk");
    }
    dir.serve_refused(&dir.disks(2), &["--choose", "3"], &["3"]);

    let server = dir.serve_with(&dir.disks(2), &["--choose", "2"]);
    server.verify("vault", &second, "the chosen side");
    assert_eq!(server.health(), "degraded");
    assert!(server.json(&["events"]).to_string().contains("disk-diverged"));
    assert!(server.log().contains("disk 1 went on without this array"), "{}", server.log());
    let told = server.status()["problems"].to_string();
    let wipe = format!("forestall destroy {}", dir.disk(1));
    for words in ["disk 1", "writes of its own", &wipe] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(!told.contains("missing since"), "{told}");
    server.run(&["disk", "readd", "1", &dir.disk(1)]).refused(&["disk 1"]);
    server.stop();
    // Settled: not asked again, and the other side's data is still its own.
    let server = dir.serve(2);
    server.verify("vault", &second, "the chosen side, again");
    server.stop();
    run(&mut forestall(&["destroy", &dir.disk(1)])).ok();
    let server = dir.serve_with(&[dir.disk(2)], &[]);
    server.ok(&["disk", "add", &dir.disk(1), "--force"]);
    server.healed();
    server.verify("vault", &second, "whole again");
    assert_ne!(first, second);
}

#[test]
fn a_disk_that_went_on_alone_is_not_joined() {
    let dir = Dir::new();
    dir.create(3, "16MiB", &["--level", "1"]);
    dir.serve(3).stop();
    // A copy of one disk is run elsewhere.
    copy(&dir.disk(3), &dir.text("copy"));
    let alone = dir.serve_with(&[dir.text("copy")], &["--degraded"]);
    alone.fill("vault", 33);
    alone.stop();
    let server = dir.serve_with(&[dir.disk(1), dir.disk(2)], &[]);
    let data = server.fill("vault", 44);
    server.stop();
    let server = dir.try_serve(&[dir.disk(1), dir.disk(2), dir.text("copy")], &[]);
    let server = match server {
        Ok(server) => server,
        // Either answer is safe; guessing is not.
        Err(run) => {
            run.refused(&["more than one way", "--choose"]);
            dir.serve_with(&[dir.disk(1), dir.disk(2), dir.text("copy")], &["--choose", "1"])
        }
    };
    server.verify("vault", &data, "the side that was not forced");
    assert_ne!(server.disk(3)["state"], "in-sync");
    server
        .run(&["disk", "readd", "3", &dir.text("copy")])
        .refused(&["disk 3", "without this array"]);
}

#[test]
fn a_copy_beside_its_original_is_refused() {
    let dir = Dir::new();
    dir.create(3, "16MiB", &["--level", "5"]);
    copy(&dir.disk(2), &dir.text("twin"));
    let paths = [dir.disks(3), vec![dir.text("twin")]].concat();
    dir.serve_refused(&paths, &[], &[&dir.disk(2), "twin", "disk 2"]);
    // One path twice, and a second name for it.
    dir.serve_refused(&[dir.disks(3), vec![dir.disk(1)]].concat(), &[], &[&dir.disk(1), "twice"]);
    std::os::unix::fs::symlink(dir.disk(1), dir.path("link")).expect("a link");
    dir.serve_refused(&[dir.disks(3), vec![dir.text("link")]].concat(), &[], &["link", "twice"]);
    // Found twice is no mistake: folders of links are scanned too.
    let scan = ["--scan", dir.root().to_str().expect("UTF-8")];
    std::fs::remove_file(dir.path("twin")).expect("the copy is gone");
    dir.serve_with(&[dir.disk(2)], &scan).stop();
}

#[test]
fn disks_of_another_array_are_refused_by_name() {
    let dir = Dir::new();
    dir.create(2, "16MiB", &["--level", "1"]);
    run(&mut forestall(&[
        "create",
        "attic",
        &dir.text("x1"),
        &dir.text("x2"),
        "--size",
        "16MiB",
        "--level",
        "1",
    ]))
    .ok();
    let mixed = [dir.disk(1), dir.disk(2), dir.text("x1")];
    dir.serve_refused(&mixed, &[], &["x1", "attic", "vault", "one array at a time"]);
    let server = dir.serve(2);
    server.run(&["disk", "add", &dir.text("x1")]).refused(&["x1", "attic", "--force"]);
    server.run(&["disk", "readd", "2", &dir.text("x1")]).refused(&[]);
    server.ok(&["disk", "fail", "2"]);
    server.run(&["disk", "readd", "2", &dir.text("x1")]).refused(&["attic", "not disk 2"]);
    let attic = dir
        .try_serve_at("2", &[dir.text("x1"), dir.text("x2")], &[])
        .unwrap_or_else(|run| panic!("let go: {run}"));
    assert_eq!(attic.health(), "healthy");
}

#[test]
fn a_second_server_on_the_same_disks_is_refused() {
    let dir = Dir::new();
    dir.create(3, "16MiB", &["--level", "5"]);
    let server = dir.serve(3);
    let data = server.fill("vault", 5);
    let refused =
        |at: &str, paths: &[String], words: &[&str]| match dir.try_serve_at(at, paths, &[]) {
            Ok(_) => panic!("a second server runs on {paths:?}"),
            Err(run) => drop(run.refused(words)),
        };
    refused("2", &dir.disks(3), &[&dir.disk(1), "in use", "another process"]);
    refused("2", &[dir.disk(3)], &[&dir.disk(3), "in use", "another process"]);
    // On the same sockets, too.
    refused("", &[dir.disk(9)], &["another server answers", "--socket"]);
    run(&mut forestall(&["create", "x", &dir.disk(1), "--force"]))
        .refused(&[&dir.disk(1), "in use"]);
    server.verify("vault", &data, "the first server goes on");
    // A killed one holds nothing.
    server.kill();
    let server = dir.serve(3);
    server.verify("vault", &data, "after a kill");
}
