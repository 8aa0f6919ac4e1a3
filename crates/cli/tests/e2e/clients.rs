//! Clients that nobody here wrote: libnbd with its tools and its Python, qemu, fio.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::tools;
use crate::util::*;

/// A RAID5 of four small disks.
fn served(dir: &Dir) -> Server {
    dir.create(4, "24MiB", &["--level", "5", "--chunk", "16KiB"]);
    dir.serve(4)
}

#[test]
fn nbdinfo_sees_size_flags_exports_and_allocation() {
    if !tools::have(&["nbdinfo"], "exports with nbdinfo") {
        return;
    }
    let dir = Dir::new();
    dir.create(4, "24MiB", &[]);
    let server = dir.serve(4);
    server.ok(&["group", "create", "--level", "5", "--disks", "1,2,3,4", "--chunk", "16KiB"]);
    server.ok(&["volume", "create", "one", "--group", "1", "--size", "8MiB"]);
    server.ok(&["volume", "create", "two", "--group", "1", "--size", "5MiB"]);
    let info = |args: &[&str]| run(Command::new("nbdinfo").args(args)).exits(0);

    assert_eq!(info(&["--size", &server.uri("one")]).stdout.trim(), (8 << 20).to_string());
    let one = info(&["--json", &server.uri("one")]).json();
    let one = &one["exports"][0];
    for flag in [
        "can_flush",
        "can_fua",
        "can_trim",
        "can_zero",
        "can_multi_conn",
        "can_cache",
        "can_df",
        "can_fast_zero",
    ] {
        assert_eq!(one[flag], true, "{flag}: {one}");
    }
    assert_eq!(one["is_read_only"], false);
    assert_eq!(
        (&one["block_size_minimum"], &one["block_size_preferred"], &one["block_size_maximum"]),
        (&json!(1), &json!(4096), &json!(32 << 20))
    );

    let list = info(&["--list", "--json", &server.uri("")]).json();
    let names: Vec<_> = list["exports"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|e| e["export-name"].clone())
        .collect();
    assert_eq!(names, [json!("one"), json!("two")]);

    server.connect("one").write(1 << 20, &noise(1, 65536), false).expect("written");
    let map = info(&["--map=base:allocation", "--json", &server.uri("one")]).json();
    let map = map.as_array().expect("a list");
    let end = map.last().map(|e| e["offset"].as_u64().unwrap() + e["length"].as_u64().unwrap());
    assert_eq!(end, Some(8 << 20), "{map:?}");
    let at = |offset: u64| {
        let covers = |e: &&serde_json::Value| {
            let from = e["offset"].as_u64().unwrap();
            (from..from + e["length"].as_u64().unwrap()).contains(&offset)
        };
        map.iter().find(covers).expect("covered")["type"].as_u64()
    };
    assert_eq!((at(0), at(1 << 20), at((8 << 20) - 1)), (Some(3), Some(0), Some(3)), "{map:?}");
    run(Command::new("nbdinfo").args(["--can", "write", &server.uri("one")])).ok();
}

#[test]
fn read_only_is_answered_once_the_writes_accepted_before_have_ended() {
    let dir = Dir::new();
    dir.create(2, "16MiB", &["--level", "1", "--allow-injection"]);
    let server = dir.serve(2);
    let data = region(&dir.disk(1), "data");
    let (start, len) = (data.start.to_string(), (data.end - data.start).to_string());
    let mut client = server.connect("vault");
    // Only where data is: the configuration that makes the volume read only is written at once.
    server.ok(&[
        "inject", "disk", "1", "--op", "write", "--kind", "delay", "--ms", "3000", "--offset",
        &start, "--len", &len,
    ]);
    let sent = Instant::now();
    client.send_write(0, &[7; 4096], false).expect("sent");
    client.submit().expect("sent");
    wait_for("the write to be under way", || {
        (!server.disk(1)["notes"].to_string().contains(" 0 times so far")).then_some(())
    });
    server.ok(&["volume", "set", "vault", "--read-only"]);
    assert!(sent.elapsed() >= Duration::from_millis(3000), "answered before the write was done");
    client.recv_reply(&mut []).expect("an answer").result.expect("accepted before");
    assert!(client.write(0, &[8; 4096], false).is_err(), "refused after");
}

#[test]
fn a_read_only_volume_refuses_writes_of_every_client_until_it_is_writable_again() {
    let dir = Dir::new();
    let server = served(&dir);
    let mut before = server.connect("vault");
    before.write(0, &[1; 4096], true).expect("writable");
    server.ok(&["volume", "set", "vault", "--read-only"]);
    for refused in [
        before.write(0, &[2; 4096], false),
        before.trim(0, 4096, false),
        server.connect("vault").write(0, &[2; 4096], false),
    ] {
        let error = refused.expect_err("read only").to_string();
        assert!(error.contains("EPERM"), "{error}");
    }
    let mut seen = [0; 4096];
    before.read(0, &mut seen).expect("reads go on");
    assert_eq!(seen, [1; 4096]);
    let can_write = |server: &Server| {
        run(Command::new("nbdinfo").args(["--can", "write", &server.uri("vault")])).code
    };
    let nbdinfo = tools::have(&["nbdinfo"], "read-only exports with nbdinfo");
    if nbdinfo {
        assert_eq!(can_write(&server), Some(2), "nbdinfo says no with 2");
    }
    server.stop();

    let server = dir.serve(4);
    assert_eq!(server.json(&["volume", "list"])[0]["read_only"], true, "it outlives a restart");
    server.ok(&["volume", "set", "1", "--read-write"]);
    if nbdinfo {
        assert_eq!(can_write(&server), Some(0));
    }
    server.connect("vault").write(0, &[3; 4096], true).expect("writable again");
    let events = server.ok(&["events"]);
    assert!(events.contains("is read only now") && events.contains("is writable now"), "{events}");
}

#[test]
fn nbdcopy_goes_both_ways() {
    if !tools::have(&["nbdcopy"], "copies with nbdcopy") {
        return;
    }
    let dir = Dir::new();
    let server = served(&dir);
    let size = server.connect("vault").export().size;
    let mut data = noise(2, size);
    // Holes of all kinds of alignment.
    data[1 << 20..5 << 20].fill(0);
    data[(9 << 20) + 512..(11 << 20) + 100].fill(0);
    std::fs::write(dir.path("in"), &data).expect("written");
    let copy = |from: &str, to: &str| {
        run(Command::new("nbdcopy").args(["--connections=4", "--flush", from, to])).ok()
    };
    copy(&dir.text("in"), &server.uri("vault"));
    server.verify("vault", &data, "what nbdcopy wrote");
    copy(&server.uri("vault"), &dir.text("out"));
    assert_same(&contents(dir.path("out")), &data, "what nbdcopy read");
    server.stop();
    dir.serve(4).verify("vault", &data, "after a restart");
}

#[test]
fn libnbd_from_python_tries_every_command_and_flag() {
    let Some(python) = tools::python("every NBD command with libnbd") else { return };
    let dir = Dir::new();
    let server = served(&dir);
    let script = include_str!("commands.py");
    let run = run(Command::new(python).args([
        "-c",
        script,
        &server.nbd_socket().display().to_string(),
        "vault",
    ]));
    let said = run.ok();
    assert!(said.ends_with("done\n"), "{said}");
    assert_eq!(server.health(), "healthy");
}

#[test]
fn qemu_io_reads_back_what_it_wrote() {
    if !tools::have(&["qemu-io"], "requests with qemu-io") {
        return;
    }
    let dir = Dir::new();
    let server = served(&dir);
    let qemu = |commands: &[&str]| {
        let mut command = Command::new("qemu-io");
        command.args(["-f", "raw", "-t", "none"]);
        commands.iter().for_each(|c| {
            command.args(["-c", c]);
        });
        let run = run(command.arg(server.uri("vault")));
        let (code, said) = (run.code, format!("{}{}", run.stdout, run.stderr));
        (code, said)
    };
    let (code, said) = qemu(&[
        "write -P 0x11 0 1M",
        "write -P 0x22 4095 3",
        "write -P 0x33 65000 70001",
        "write -f -P 0x44 3M 512",
        "write -z 512k 64k",
        "write -z -u 576k 64k",
        "discard 768k 64k",
        "flush",
        "aio_write -P 0x55 5M 1M",
        "aio_write -P 0x66 7M 64k",
        "aio_flush",
        "read -P 0x11 0 4095",
        "read -P 0x22 4095 3",
        "read -P 0x11 4098 60902",
        "read -P 0x33 65000 70001",
        "read -P 0x44 3M 512",
        "read -P 0 512k 128k",
        "read -P 0x55 5M 1M",
        "read -P 0x66 7M 64k",
    ]);
    assert!(
        code == Some(0) && !said.contains("verification failed") && !said.contains("rror"),
        "{said}"
    );
    let (_, said) = qemu(&["read -P 0x12 0 512"]);
    assert!(said.contains("verification failed"), "this check can fail: {said}");
}

#[test]
fn qemu_img_converts_both_ways_and_compares() {
    if !tools::have(&["qemu-img"], "images with qemu-img") {
        return;
    }
    let dir = Dir::new();
    let server = served(&dir);
    let size = server.connect("vault").export().size;
    let mut data = noise(4, size);
    data[2 << 20..20 << 20].fill(0);
    std::fs::write(dir.path("raw"), &data).expect("written");
    let qemu = |args: &[&str]| run(Command::new("qemu-img").args(args)).exits(0);
    let (raw, cow, uri) = (dir.text("raw"), dir.text("image.qcow2"), server.uri("vault"));
    qemu(&["convert", "-n", "-W", "-m", "8", "-f", "raw", "-O", "raw", &raw, &uri]);
    qemu(&["compare", "-f", "raw", "-F", "raw", &raw, &uri]);
    qemu(&["convert", "-f", "raw", "-O", "qcow2", &uri, &cow]);
    qemu(&["compare", "-f", "raw", "-F", "qcow2", &raw, &cow]);
    server.verify("vault", &data, "what qemu-img wrote");
    let map = qemu(&["map", "--output=json", "-f", "raw", &uri]).json();
    assert!(map.as_array().expect("a list").iter().any(|e| e["zero"] == true), "{map}");
}

#[test]
fn fio_verifies_random_writes_of_odd_sizes() {
    if !tools::have(&["fio"], "verified random load with fio") {
        return;
    }
    let dir = Dir::new();
    let server = served(&dir);
    let fio = |args: &[&str]| {
        let mut command = Command::new("fio");
        command.current_dir(dir.root()).args([
            "--name=job",
            "--ioengine=nbd",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--size=24M",
        ]);
        run(command.arg(format!("--uri={}", server.uri("vault"))).args(args)).ok()
    };
    // fio skips what it cannot do with a message, not an error: the written bytes are looked for.
    let said = fio(&[
        "--rw=randwrite",
        "--bsrange=512-128k",
        "--bs_unaligned=0",
        "--blockalign=512",
        "--iodepth=16",
    ]);
    assert!(said.contains("WRITE: ") && said.contains("READ: "), "{said}");
    let said = fio(&[
        "--rw=randrw",
        "--bs=4k",
        "--iodepth=32",
        "--io_size=16M",
        "--fsync=64",
        "--do_verify=1",
    ]);
    assert!(said.contains("WRITE: "), "{said}");
    // Degraded, and with sizes that fit no block.
    server.ok(&["disk", "fail", "3"]);
    let said =
        fio(&["--rw=randwrite", "--bs=13k", "--blockalign=1k", "--iodepth=8", "--io_size=12M"]);
    assert!(said.contains("WRITE: ") && said.contains("READ: "), "{said}");
    assert_eq!(server.health(), "degraded");
}
