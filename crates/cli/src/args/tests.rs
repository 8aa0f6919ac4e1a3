//! Every command line that scripts may rely on parses, and what is wrong is a usage error.

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::read(line.split_whitespace())
}

fn command(line: &str) -> Command {
    parse(line).unwrap_or_else(|e| panic!("{line}: {e}")).command
}

#[test]
fn the_grammar_is_sound() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

#[test]
fn every_promised_line_parses() {
    let lines = [
        "forestall create a d1",
        "forestall create a d1 d2 d3 --size 64MiB --level 5 --chunk 64KiB --spares 1 --volume v --allow-injection --force",
        "forestall serve d1 d2",
        "forestall serve --scan /a /b --socket s --nbd unix:/p --nbd tcp:h:1 --io pread --degraded --wait 5 --choose 2 \
         --accept-write-hole --give-up-backups --on-event true",
        "forestall serve memory:1GiB memory:1GiB memory:1GiB --level 5 --chunk 4KiB --volume v",
        "forestall disk add p",
        "forestall disk add p --role free",
        "forestall disk remove 1",
        "forestall disk fail 1",
        "forestall disk readd 1",
        "forestall disk readd 1 p",
        "forestall disk list",
        "forestall group create --level 10 --disks 1,2,3,4 --chunk 4KiB",
        "forestall group delete 1",
        "forestall group continue 1",
        "forestall group list",
        "forestall volume create v --group 1 --size 18GB --number 4",
        "forestall volume grow v --size 1TiB",
        "forestall volume rename v w",
        "forestall volume set v --read-only",
        "forestall volume set v --read-write",
        "forestall volume set v --backup work-volume",
        "forestall volume set v --read-only --backup direct",
        "forestall volume delete v",
        "forestall volume list",
        "forestall replace 1 --with 2 --rate 16",
        "forestall replace 1 --backup auto",
        "forestall replace 1 --with 2 --backup pair",
        "forestall replace pause 1",
        "forestall replace resume 1",
        "forestall replace cancel 1",
        "forestall work-volume add spool",
        "forestall work-volume add 10 --for 1,data",
        "forestall work-volume remove spool",
        "forestall work-disk add 60 --legs p,q",
        "forestall work-disk add 60 --legs p,q --for 1,2 --size 64MiB --force",
        "forestall work-disk remove 60",
        "forestall work-disk abandon 60",
        "forestall work-volume abandon w",
        "forestall policy set advise",
        "forestall policy shelter on",
        "forestall policy show",
        "forestall scrub 1 --repair --rate 16",
        "forestall pair create v1 v2 --rate 16",
        "forestall pair resync v1 --rate 16",
        "forestall jobs --wait",
        "forestall status",
        "forestall pair create a b",
        "forestall pair split a",
        "forestall pair resync a",
        "forestall pair hold 4",
        "forestall pair release 4",
        "forestall pair delete a",
        "forestall pair list",
        "forestall show t1",
        "forestall show t3",
        "forestall show t4 --bits 20",
        "forestall show t5",
        "forestall show t6",
        "forestall show t7",
        "forestall show t2 --bits 40",
        "forestall events --follow",
        "forestall inject disk 2 --op read --kind error --offset 1MiB --len 4096 --count 3",
        "forestall inject disk 2 --kind delay --ms 20",
        "forestall inject disk 2 --clear",
        "forestall inspect p",
        "forestall destroy p q",
        "forestall stop",
        "forestall demo --keep",
    ];
    for line in lines {
        command(line);
        let with_globals = format!("{line} --json -s sock");
        if !line.contains("--socket") {
            let cli = parse(&with_globals).unwrap_or_else(|e| panic!("{with_globals}: {e}"));
            assert!(cli.json && cli.socket == Some("sock".into()));
        }
    }
}

#[test]
fn what_was_typed_is_what_is_meant() {
    let Command::Create(create) =
        command("forestall create a x y --size 64MiB --level 6 --spares 1")
    else {
        panic!("create");
    };
    assert_eq!((create.name.as_str(), create.paths.len(), create.size), ("a", 2, Some(64 << 20)));
    assert_eq!((create.level, create.chunk, create.spares), (Some(LevelWord::Raid6), 65_536, 1));

    let Command::Serve(serve) =
        command("forestall serve p --nbd unix:/a --nbd tcp:localhost:1 --wait 9")
    else {
        panic!("serve");
    };
    let nbd: Vec<String> = serve.nbd.iter().map(ToString::to_string).collect();
    assert_eq!(nbd, ["unix:/a", "tcp:localhost:1"]);
    assert_eq!((serve.wait, serve.io, serve.scan.len()), (9, IoWord::Uring, 0));

    let Command::Group(GroupCommand::Create { level, disks, .. }) =
        command("forestall group create --level 5 --disks 1,2,3,4")
    else {
        panic!("group create");
    };
    assert_eq!((level, disks), (LevelWord::Raid5, vec![1, 2, 3, 4]));

    let Command::Replace(replace) = command("forestall replace 3 --rate 16") else {
        panic!("replace")
    };
    assert_eq!((replace.disk, replace.with, replace.rate), (Some(3), None, 16 << 20));
}

#[test]
fn usage_errors_have_exit_code_2() {
    let lines = [
        "forestall frobnicate",
        "forestall create a",
        "forestall create a d --size 64M",
        "forestall create a d --level 7",
        "forestall create a d --level 5 --chunk 3KiB",
        "forestall create a d --level 5 --chunk 2MiB",
        "forestall create a d --spares 1",
        "forestall serve",
        "forestall serve p --nbd /run/x",
        "forestall serve p --level 5",
        "forestall serve memory:1GiB p --chunk 4KiB",
        "forestall serve --scan /dev --volume v",
        "forestall disk remove",
        "forestall disk remove x",
        "forestall group create --level 5",
        "forestall volume create v --group 1",
        "forestall replace",
        "forestall replace 1 --rate fast",
        "forestall inject disk 2",
        "forestall inject disk 2 --kind delay",
        "forestall inject disk 2 --kind error --offset 0",
        "forestall inject disk 2 --kind error --clear",
        "forestall inject volume 2 --kind error",
        "forestall replace 1 --backup tape",
        "forestall volume set v",
        "forestall volume set v --read-only --read-write",
        "forestall work-disk add 60",
        "forestall work-disk add sixty --legs p",
        "forestall work-volume add",
        "forestall show t9",
        "forestall show t4 --bits 0",
        "forestall pair create a",
        "forestall show t2 --bits 0",
        "forestall destroy",
    ];
    for line in lines {
        let error = parse(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}: {error}");
    }
}

#[test]
fn numbers_below_zero_are_values_that_are_refused() {
    let lines = [
        ("health set timeout -1", "`-1`: a threshold is 1 to 1000000 errors"),
        ("disk fail -1", "-1 is not in"),
        ("group create --level 5 --disks -1,2,3", "-1 is not in"),
        ("jobs --limit -1 --rate 3", "`-1` is not a whole number"),
        ("replace 1 --rate -3", "`-3` is not a number of MiB a second"),
        ("volume create v --group 1 --size -5GiB", "`-5GiB` is not a size"),
        ("serve p --wait -1", "`-1` is not a whole number"),
        ("show t2 --bits -4", "1 to 1048576 bits"),
    ];
    for (line, words) in lines {
        let error = parse(&format!("forestall {line}")).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}: {error}");
        assert!(error.to_string().contains(words), "{line}: {error}");
    }
}

#[test]
fn what_is_wrong_is_said_once_and_with_the_way_out() {
    let told = |line: &str| parse(line).expect_err(line).to_string();
    let address = told("forestall serve p --nbd nowhere");
    assert_eq!(address.matches("nowhere").count(), 1, "{address}");
    assert!(address.contains("--nbd") && address.contains("unix:PATH"), "{address}");
    let level = told("forestall serve p --level 5");
    assert!(level.contains("--level is for arrays in memory"), "{level}");
    assert!(level.contains("forestall serve"), "its own usage: {level}");
}
