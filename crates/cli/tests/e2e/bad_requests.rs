//! Commands that cannot be done: each is refused with the thing's name and the way out, and nothing changes.

use crate::util::*;

#[test]
fn volumes_that_cannot_be() {
    let dir = Dir::new();
    dir.create(3, "16MiB", &[]);
    let server = dir.serve(3);
    server.ok(&["group", "create", "--level", "5", "--disks", "1,2,3"]);
    server.ok(&["volume", "create", "a", "--group", "1", "--size", "4MiB"]);
    let before = server.json(&["volume", "list"]);
    let create = |name: &str, size: &str| {
        server.run(&["volume", "create", name, "--group", "1", "--size", size])
    };
    create("big", "1GiB").refused(&["group 1", "MiB", "free"]);
    create("huge", "8191PiB").refused(&["group 1"]);
    create("none", "0").refused(&["4 KiB"]);
    create("far", "9EiB").usage(&["9EiB", "below 8EiB"]);
    create("a", "1MiB").refused(&["\"a\"", "already"]);
    let long = "x".repeat(64);
    for name in
        ["", "7", " a", "a ", "a\nb", "tab\tbed", "bell\u{7}", "\u{1b}[31mred", long.as_str()]
    {
        create(name, "1MiB").refused(&["is no name for", "volume"]);
        server.run(&["volume", "rename", "a", name]).refused(&["is no name for", "volume"]);
    }
    server.run(&["volume", "create", "b", "--group", "9", "--size", "1MiB"]).refused(&["group 9"]);
    server
        .run(&["volume", "create", "b", "--group", "1", "--size", "1MiB", "--number", "1"])
        .refused(&["volume 1"]);
    server
        .run(&["volume", "create", "b", "--group", "1", "--size", "1MiB", "--number", "0"])
        .refused(&["from 1"]);
    server.run(&["volume", "grow", "a", "--size", "1GiB"]).refused(&["group 1", "MiB", "free"]);
    for command in [
        &["volume", "grow", "zz", "--size", "8MiB"][..],
        &["volume", "rename", "zz", "y"],
        &["volume", "delete", "zz"],
    ] {
        server.run(command).refused(&["\"zz\"", "volume list"]);
    }
    assert_eq!(server.json(&["volume", "list"]), before);
    create(&"y".repeat(63), "1MiB").ok();
    server.ok(&["volume", "rename", "a", "a b/ö"]);
}

#[test]
fn arrays_with_names_that_cannot_be() {
    let dir = Dir::new();
    let long = "x".repeat(64);
    for name in ["", " vault", "va\nult", "\u{1b}[2J", long.as_str()] {
        run(&mut forestall(&["create", name, &dir.disk(1), "--size", "16MiB"]))
            .refused(&["no name for an array"]);
        run(&mut forestall(&[
            "create",
            "x",
            &dir.disk(1),
            "--size",
            "16MiB",
            "--level",
            "0",
            "--volume",
            name,
        ]))
        .refused(&["is no name for", "volume"]);
        assert!(!dir.path("d1").exists(), "a file of a refused array is left behind");
    }
}

#[test]
fn groups_and_disks_that_cannot_be() {
    let dir = Dir::new();
    dir.create(5, "16MiB", &["--level", "5", "--spares", "2"]);
    let server = dir.serve(5);
    let before = (server.json(&["group", "list"]), server.status()["generation"].clone());
    server
        .run(&["group", "create", "--level", "5", "--disks", "1,2,3"])
        .refused(&["disk 1", "group 1"]);
    server.run(&["group", "create", "--level", "6", "--disks", "4,5"]).refused(&[]);
    server.run(&["group", "delete", "7"]).refused(&["group 7"]);
    server.run(&["group", "delete", "1"]).refused(&["\"vault\""]);
    server.run(&["group", "continue", "1"]).refused(&["group 1", "not paused"]);
    server.run(&["disk", "fail", "77"]).refused(&["disk 77", "disk list"]);
    server.run(&["disk", "readd", "1"]).refused(&["disk 1", "in service"]);
    server.run(&["disk", "add", &dir.text("nowhere")]).refused(&["nowhere", "--size"]);
    server.run(&["disk", "add", "/dev/null"]).refused(&["/dev/null"]);
    server.run(&["disk", "add", &dir.disk(9), "--size", "64KiB"]).refused(&[&dir.disk(9)]);
    assert!(!dir.path("d9").exists(), "the file of a refused disk is left behind");
    server.run(&["replace", "4"]).refused(&["disk 4", "no group"]);
    server.run(&["replace", "1", "--with", "1"]).refused(&["disk 1", "itself"]);
    server.run(&["replace", "1", "--with", "2"]).refused(&["disk 2", "in use"]);
    server.run(&["replace", "1", "--with", "8"]).refused(&["disk 8"]);
    server.run(&["scrub", "4"]).refused(&["group 4"]);
    server.run(&["jobs", "--limit", "99", "--rate", "1"]).refused(&["99"]);
    server.run(&["inject", "disk", "1", "--kind", "error"]).refused(&["--allow-injection"]);
    assert_eq!(
        (server.json(&["group", "list"]), server.status()["generation"].clone()),
        before,
        "a refusal changed something"
    );
    // Two scrubs at once: the first has data to read, at a rate that keeps it busy.
    server.fill("vault", 7);
    server.ok(&["scrub", "1", "--rate", "1"]);
    server.run(&["scrub", "1"]).refused(&["group 1"]);
    server.stop();
}

#[test]
fn the_management_socket_is_not_stolen_and_not_open_to_all() {
    use std::os::unix::fs::PermissionsExt;
    let dir = Dir::new();
    dir.create(2, "16MiB", &["--level", "1"]);
    std::fs::write(dir.path("m.sock"), b"precious").expect("written");
    dir.serve_refused(&dir.disks(2), &[], &["m.sock", "not a socket"]);
    assert_eq!(contents(dir.path("m.sock")), b"precious");
    std::fs::remove_file(dir.path("m.sock")).expect("removed");
    let told = match dir.try_serve(&dir.disks(2), &["--nbd", "carrier:pigeon"]) {
        Ok(_) => panic!("no address, and yet it serves"),
        Err(run) => run.usage(&["carrier:pigeon", "unix:PATH"]),
    };
    assert_eq!(told.matches("carrier:pigeon").count(), 1, "said once: {told}");
    let server = dir.serve(2);
    let mode = std::fs::metadata(&server.socket).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Killed, it leaves its sockets behind; the next server takes them over.
    server.kill();
    assert!(dir.path("m.sock").exists());
    dir.serve(2).stop();
}
