//! Every level, created by the command line, losing what it tolerates: at run time, at a start, and both.

use crate::util::*;

struct Shape {
    level: &'static str,
    disks: u32,
    lost: &'static [u32],
}

const SHAPES: &[Shape] = &[
    Shape { level: "1", disks: 3, lost: &[1, 3] },
    Shape { level: "5", disks: 4, lost: &[2] },
    Shape { level: "6", disks: 5, lost: &[1, 4] },
    Shape { level: "10", disks: 4, lost: &[1, 4] },
];

/// Odd writes all over, in the model and in the volume.
fn scribble(server: &Server, data: &mut [u8], seed: u64) {
    let mut client = server.connect("vault");
    for (index, len) in [1_u64, 511, 513, 4095, 4097, 65_535, 70_001, 300_007]
        .into_iter()
        .cycle()
        .take(48)
        .enumerate()
    {
        let at = (index as u64 + 1) * 1_000_003 * (seed + 1) % (data.len() as u64 - len);
        let piece = noise(seed * 1000 + index as u64, len);
        client.write(at, &piece, index % 5 == 0).expect("written");
        data[at as usize..(at + len) as usize].copy_from_slice(&piece);
    }
    client.flush().expect("flushed");
}

#[test]
fn members_fail_one_by_one_under_writes() {
    for shape in SHAPES {
        for io in ["uring", "pread"] {
            let dir = Dir::new();
            dir.create(shape.disks, "20MiB", &["--level", shape.level, "--chunk", "16KiB"]);
            let server = dir.serve_with(&dir.disks(shape.disks), &["--io", io]);
            let mut data = server.fill("vault", 1);
            for (round, disk) in shape.lost.iter().enumerate() {
                server.ok(&["disk", "fail", &disk.to_string()]);
                server.verify(
                    "vault",
                    &data,
                    &format!("level {}, {io}, disk {disk} failed", shape.level),
                );
                scribble(&server, &mut data, round as u64);
                server.verify(
                    "vault",
                    &data,
                    &format!("level {}, {io}, written without disk {disk}", shape.level),
                );
            }
            assert_eq!(server.health(), "degraded");
            server.stop();
            let server = dir.serve(shape.disks);
            server.verify("vault", &data, &format!("level {}, {io}, after a restart", shape.level));
            // The one that left last first: the others missed writes that only it has seen.
            for disk in shape.lost.iter().rev() {
                server.ok(&["disk", "readd", &disk.to_string()]);
            }
            server.healed();
            server.verify("vault", &data, &format!("level {}, {io}, whole again", shape.level));
        }
    }
}

#[test]
fn members_are_missing_at_the_start() {
    for shape in SHAPES {
        let dir = Dir::new();
        dir.create(shape.disks, "20MiB", &["--level", shape.level]);
        let server = dir.serve(shape.disks);
        let mut data = server.fill("vault", 2);
        server.stop();
        let present: Vec<String> =
            (1..=shape.disks).filter(|n| !shape.lost.contains(n)).map(|n| dir.disk(n)).collect();
        // Mirrors that lost half or more ask first (rule C4).
        let asks = present.len() * 2 <= shape.disks as usize;
        let flags: &[&str] = if asks { &["--degraded"] } else { &[] };
        if asks {
            dir.serve_refused(&present, &[], &["missing", "--degraded", &dir.disk(shape.lost[0])]);
        }
        let server = dir.serve_with(&present, flags);
        assert_eq!(server.health(), "degraded");
        assert_eq!(server.disk(shape.lost[0])["state"], "missing");
        server.verify("vault", &data, &format!("level {}, members missing", shape.level));
        scribble(&server, &mut data, 9);
        server.verify("vault", &data, &format!("level {}, written without them", shape.level));
        for disk in shape.lost {
            server.ok(&["disk", "readd", &disk.to_string(), &dir.disk(*disk)]);
        }
        server.healed();
        server.stop();
        // Now the others go.
        let server = dir.serve(shape.disks);
        server.verify("vault", &data, &format!("level {}, all back", shape.level));
        assert_eq!(server.health(), "healthy");
    }
}

#[test]
fn raid0_has_all_the_space_and_no_redundancy() {
    let dir = Dir::new();
    dir.create(3, "16MiB", &["--level", "0", "--chunk", "1MiB"]);
    let server = dir.serve(3);
    let data = server.fill("vault", 5);
    assert!(data.len() > 40 << 20);
    server.run(&["disk", "fail", "2"]).refused(&["group 1", "lose data"]);
    server.verify("vault", &data, "nothing was done");
    server.stop();
    dir.serve(3).verify("vault", &data, "after a restart");
    let server = dir.serve_with(&[dir.disk(1), dir.disk(3)], &[]);
    server.run(&["status"]).exits(4);
    let mut found = vec![0; 1 << 20];
    let mut client = server.connect("vault");
    client.read(0, &mut found).expect("what is there answers");
    assert_same(&found, &data[..1 << 20], "a present disk");
    client.read(1 << 20, &mut found).expect_err("what is not there does not");
}
