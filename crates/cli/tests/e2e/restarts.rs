//! Ends and beginnings of the server, as clients live through them.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use forestall_nbd::{Client, ClientOptions};

use crate::tools;
use crate::util::*;

#[test]
fn scan_finds_disks_in_any_order_under_other_names() {
    let dir = Dir::new();
    dir.create(4, "16MiB", &["--level", "5"]);
    let server = dir.serve(4);
    let data = server.fill("vault", 1);
    server.stop();
    for folder in ["left", "right"] {
        std::fs::create_dir(dir.path(folder)).expect("a new folder");
    }
    for (number, name) in [(1, "right/zz"), (2, "left/b.img"), (3, "left/a b"), (4, "right/0")] {
        std::fs::rename(dir.disk(number), dir.path(name)).expect("renamed");
    }
    std::fs::write(dir.path("left/notes.txt"), b"not a disk").expect("written");
    let server = dir.serve_with(&[], &["--scan", &dir.text("left"), &dir.text("right")]);
    server.verify("vault", &data, "disks under other names");
    assert_eq!(server.health(), "healthy");
    assert_eq!(server.disk(1)["identity"]["path"], dir.text("right/zz").as_str());
    server.stop();
    let elsewhere = dir.text("nothing");
    std::fs::create_dir(&elsewhere).expect("a new folder");
    dir.serve_refused(&[], &["--scan", &elsewhere], &["no disk"]);
    dir.serve_refused(&[], &["--scan", &dir.text("absent")], &["absent"]);
}

#[test]
fn unix_and_tcp_are_served_at_once() {
    if !tools::have(&["nbdinfo"], "TCP with nbdinfo") {
        return;
    }
    let dir = Dir::new();
    dir.create(2, "16MiB", &["--level", "1"]);
    let server = dir.serve_with(&dir.disks(2), &["--nbd", "tcp:127.0.0.1:0"]);
    let page = server.ok(&["status"]);
    let port =
        page.split("tcp:127.0.0.1:").nth(1).expect("status says where").split_whitespace().next();
    let port: u16 = port.expect("a port").parse().expect("a number");
    let size =
        run(Command::new("nbdinfo").args(["--size", &format!("nbd://127.0.0.1:{port}/vault")]))
            .ok();
    assert_eq!(
        size.trim().parse::<u64>().expect("a number"),
        server.connect("vault").export().size
    );

    let tcp = std::net::TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let mut tcp = Client::connect(tcp, &ClientOptions::new("vault")).expect("the export is there");
    let piece = noise(1, 100_000);
    server.connect("vault").write(12_345, &piece, false).expect("written");
    let mut found = vec![0; piece.len()];
    tcp.read(12_345, &mut found).expect("read");
    assert_same(&found, &piece, "written over unix, read over TCP");
    dir.serve_refused(
        &[dir.disk(9)],
        &["--nbd", &format!("tcp:127.0.0.1:{port}")],
        &["another server"],
    );
}

#[test]
fn sigterm_answers_what_it_accepted_and_keeps_it() {
    let dir = Dir::new();
    dir.create(4, "24MiB", &["--level", "5"]);
    let server = dir.serve(4);
    let mut client = server.connect("vault");
    let cookies: Vec<u64> = (0..64)
        .map(|n| client.send_write(n * 40_000, &noise(n, 10_000), false).expect("sent"))
        .collect();
    client.submit().expect("sent");
    // At least one is answered before the signal; the others are on their way.
    let mut answered = vec![client.recv_reply(&mut []).expect("an answer")];
    signal(server.pid(), "TERM");
    // The same wish once more, as from a shell that ends a whole group.
    signal(server.pid(), "INT");
    while client.in_flight() > 0 {
        match client.recv_reply(&mut []) {
            Ok(reply) => answered.push(reply),
            Err(_) => break,
        }
    }
    let mut server = server;
    let log = server.ended();
    assert!(log.contains("everything is on the disks"), "{log}");
    assert!(!server.socket.exists() && !server.nbd_socket().exists(), "sockets are removed");

    let server = dir.serve(4);
    assert_eq!(server.health(), "healthy");
    assert!(
        server.json(&["jobs"]).as_array().expect("a list").is_empty(),
        "a clean stop needs no resync"
    );
    let mut client = server.connect("vault");
    for reply in answered.iter().filter(|reply| reply.result.is_ok()) {
        let n = cookies.iter().position(|c| *c == reply.cookie).expect("one of ours") as u64;
        let mut found = vec![0; 10_000];
        client.read(n * 40_000, &mut found).expect("read");
        assert_same(&found, &noise(n, 10_000), "an answered write");
    }
    assert!(server.terminate().contains("everything is on the disks"));
}

#[test]
fn stop_answers_when_everything_is_on_the_disks() {
    let dir = Dir::new();
    dir.create(2, "16MiB", &["--level", "1"]);
    let server = dir.serve(2);
    // An idle client must not hold it up.
    let _idle = server.connect("vault");
    let _silent = UnixStream::connect(server.nbd_socket()).expect("it listens");
    let data = server.fill("vault", 2);
    server.stop();
    let clean = run(&mut forestall(&["inspect", &dir.disk(1)])).ok();
    assert!(clean.contains(", clean,"), "{clean}");
    dir.serve(2).verify("vault", &data, "after the stop");
}

#[test]
fn a_client_that_reconnects_survives_a_restart() {
    if !tools::have(&["qemu-io"], "reconnecting with qemu-io") {
        return;
    }
    let dir = Dir::new();
    dir.create(3, "16MiB", &["--level", "5"]);
    for ending in ["stop", "kill"] {
        let server = dir.serve(3);
        let image = format!(
            "driver=raw,file.driver=nbd,file.server.type=unix,file.server.path={},file.export=vault,file.reconnect-delay=60",
            server.nbd_socket().display()
        );
        let mut command = Command::new("qemu-io");
        command
            .args(["-t", "none", "--image-opts", &image])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut qemu = Killed::spawn(&mut command);
        let mut input = qemu.0.stdin.take().expect("piped");
        let mut output = BufReader::new(qemu.0.stdout.take().expect("piped"));
        let mut say = |line: &str, answer: &str| {
            writeln!(input, "{line}").expect("qemu-io listens");
            let mut all = String::new();
            loop {
                let mut text = String::new();
                assert!(output.read_line(&mut text).expect("text") > 0, "qemu-io ended: {all}");
                all += &text;
                assert!(!text.contains("rror") && !text.contains("failed"), "{all}");
                if text.contains(answer) {
                    return;
                }
            }
        };
        say("write -f -P 0x41 1M 64k", "wrote 65536/65536");
        match ending {
            "stop" => server.stop(),
            _ => server.kill(),
        }
        let server = dir.serve(3);
        say("read -P 0x41 1M 64k", "read 65536/65536");
        say("write -f -P 0x42 2M 64k", "wrote 65536/65536");
        let mut found = [0; 4096];
        server.connect("vault").read(2 << 20, &mut found).expect("read");
        assert_eq!(found, [0x42; 4096]);
        drop(qemu);
        server.stop();
    }
}

#[test]
fn a_rebuild_goes_on_where_it_stopped() {
    let dir = Dir::new();
    dir.create(4, "64MiB", &["--level", "5"]);
    let server = dir.serve(4);
    let data = server.fill("vault", 3);
    server.ok(&["disk", "fail", "1"]);
    server.ok(&["disk", "add", &dir.disk(5), "--size", "64MiB"]);
    let job = wait_for("the rebuild", || {
        let jobs = server.json(&["jobs"]);
        jobs.as_array().expect("a list").iter().find(|j| j["kind"] == "rebuild").cloned()
    });
    server.ok(&["jobs", "--limit", &job["id"].to_string(), "--rate", "1"]);
    server.verify("vault", &data, "during the rebuild");
    server.stop();
    let server = dir.serve(5);
    server.healed();
    server.verify("vault", &data, "after the rebuild");
    server.ok(&["disk", "fail", "2"]);
    server.verify("vault", &data, "from the rebuilt disk");
}

#[test]
fn a_start_waits_for_disks() {
    let dir = Dir::new();
    dir.create(3, "16MiB", &["--level", "5"]);
    let away = dir.text("away");
    std::fs::rename(dir.disk(2), &away).expect("renamed");
    // It comes while the server waits; the wait ends with it, long before its time is over.
    let (from, to) = (away.clone(), dir.disk(2));
    let log = dir.path("log1");
    let bring = std::thread::spawn(move || {
        wait_for("the server to wait", || {
            std::fs::read_to_string(&log).ok().filter(|l| l.contains("waiting for disks"))
        });
        std::fs::rename(from, to).expect("renamed");
    });
    let server = dir.serve_with(&dir.disks(3), &["--wait", "3600"]);
    bring.join().expect("it was brought");
    assert_eq!(server.health(), "healthy");
    server.stop();
    // Without patience it starts with what is there.
    std::fs::rename(dir.disk(2), &away).expect("renamed");
    let server = dir.serve_with(&dir.disks(3), &["--wait", "1"]);
    assert_eq!(server.health(), "degraded");
}

/// A mirror of five disks of which three die: too few are left to go on unasked (rule C3).
fn three_of_five_die() -> (Dir, Server) {
    let dir = Dir::new();
    dir.create(5, "16MiB", &["--level", "1", "--allow-injection"]);
    let server = dir.serve(5);
    for disk in ["3", "4", "5"] {
        server.ok(&["inject", "disk", disk, "--kind", "death"]);
    }
    (dir, server)
}

#[test]
fn too_many_disks_at_once_pause_hosts_until_an_operator_lets_them_go_on() {
    let (_dir, server) = three_of_five_die();
    // Rule C3: two of five is too few to go on unasked, although one copy would do.
    let mut client = server.connect("vault");
    let writer = std::thread::spawn(move || client.write(0, &[7; 4096], true));
    let paused = wait_for("the pause", || {
        let status = server.status();
        (status["groups"][0]["paused"] == true).then_some(status)
    });
    assert_eq!(paused["health"], "failed", "{paused}");
    assert!(paused["problems"].to_string().contains("forestall group continue 1"), "{paused}");
    server.run(&["status"]).exits(4);
    assert!(!writer.is_finished(), "neither answered nor failed");

    server.ok(&["group", "continue", "1"]);
    writer.join().expect("no panic").expect("the write was only late");
    let mut seen = [0; 4096];
    server.connect("vault").read(0, &mut seen).expect("it goes on");
    assert_eq!(seen, [7; 4096]);
    assert_eq!(server.health(), "degraded");
}

#[test]
fn a_volume_that_is_deleted_while_hosts_are_paused_keeps_nobody_from_going_on() {
    let (_dir, server) = three_of_five_die();
    let mut client = server.connect("vault");
    let writer = std::thread::spawn(move || client.write(0, &[7; 4096], true));
    let paused = || server.json(&["group", "list"])[0]["paused"] == true;
    wait_for("the pause", || paused().then_some(()));
    std::thread::scope(|scope| {
        let delete = scope.spawn(|| server.ok(&["volume", "delete", "vault"]));
        server.shuts("vault");
        assert!(!delete.is_finished() && !writer.is_finished(), "nothing moves in a pause");
        server.ok(&["group", "continue", "1"]);
        delete.join().expect("deleted once its last request has ended");
    });
    writer.join().expect("no panic").expect("the write was only late");
    assert_eq!(server.json(&["volume", "list"]), serde_json::json!([]));
    server.stop();
}

#[test]
fn a_server_whose_lines_nobody_can_read_serves_and_stops_in_good_order() {
    let dir = Dir::new();
    dir.create(2, "16MiB", &["--level", "1"]);
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let socket = dir.text("m.sock");
    let mut serve = forestall(&["serve", "--socket", &socket, "--nbd"]);
    serve.arg(format!("unix:{}", dir.text("n.sock"))).args(dir.disks(2));
    let child = serve.stdin(Stdio::null()).stdout(full()).stderr(full()).spawn();
    let mut child = child.expect("the program under test can be run");
    let ended = wait_for("an answer, or the server's end", || {
        let ended = child.try_wait().expect("it is ours");
        let answers = run(&mut forestall(&["status", "-s", &socket])).code == Some(0);
        (answers || ended.is_some()).then_some(ended)
    });
    assert_eq!(ended, None, "it ended by itself");
    run(&mut forestall(&["stop", "-s", &socket])).ok();
    let ended = wait_for("the server to end", || child.try_wait().expect("it is ours"));
    assert_eq!(ended.code(), Some(0), "{ended}");
    run(forestall(&["check"]).args(dir.disks(2))).exits(0);
}
