//! Stories of disks that answer wrongly without any error (rules K1, K2).
//!
//! Owns the scripts; [`crate::scenarios`] lists them. Invariant: what goes wrong is durable before it does, so that no story mistakes a write that was
//! cut for a disk's falsehood; how much goes wrong is what the level survives, unless the story says otherwise.

use std::rc::Rc;

use forestall_engine::format::layout::Layout;
use forestall_engine::{AssembleOptions, DiskNumber, DiskState, Level};

use crate::rng::Rng;
use crate::scenarios::{act, degraded};
use crate::script::{Script, stage_of};
use crate::shelf::Bay;
use crate::stage::Stage;
use crate::trace::Trace;

/// Levels with redundancy, their members, and how many of them may be wrong at once.
const LEVELS: [(Level, usize, usize); 5] = [
    (Level::Raid1, 2, 1),
    (Level::Raid1, 3, 2),
    (Level::Raid5, 4, 1),
    (Level::Raid6, 5, 2),
    (Level::Raid10, 4, 1),
];

const BLOCK: u64 = 4096;

/// Where everything lies on a disk.
pub(crate) fn layout(bay: &Bay) -> Layout {
    Layout::for_size(bay.drive.size()).expect("a labelled disk")
}

/// Lets bits flip in so many blocks of the data space, drawn at random; every member of `bays` at the same places.
fn rot_blocks(bays: &[Rc<Bay>], count: u64, rng: &mut Rng) {
    for _ in 0..count {
        let data = layout(&bays[0]).data;
        let block = rng.below(data.blocks());
        for bay in bays {
            bay.drive.rot(layout(bay).data.block(block) + rng.below(8) * 512);
        }
    }
}

/// `count` members drawn at random.
fn some(stage: &mut Stage, members: usize, count: usize) -> Vec<Rc<Bay>> {
    let mut bays: Vec<_> = stage.world.shelf.all().into_iter().take(members).collect();
    (0..count).map(|_| bays.swap_remove(stage.rng.index(bays.len()))).collect()
}

impl Script {
    /// Writes the whole volume and makes it durable.
    async fn fill(&self) {
        for at in (0..self.size()).step_by(256 << 10) {
            self.write(at, (256 << 10).min(self.size() - at)).await;
        }
        self.flush().await;
    }

    /// Mismatches counted of all disks.
    fn mismatches(&self) -> u64 {
        self.machine.array.report().disks.iter().map(|disk| disk.errors.checksums).sum()
    }

    /// Whether each block of the volume can be read.
    async fn readable(&self) -> Vec<bool> {
        let volume = self.machine.array.open_volume("v1").expect("the volume is there");
        let mut readable = Vec::new();
        for at in (0..self.size()).step_by(BLOCK as usize) {
            readable.push(volume.read(at, BLOCK).await.is_ok());
        }
        readable
    }

    async fn scrubbed(&self) {
        let group = self.machine.array.report().groups[0].number;
        let started = self.machine.array.scrub(group, true, 0).await;
        self.must(started, "scrub");
        self.machine.quiet().await;
    }

    fn complain_unless(&self, holds: bool, what: &str) {
        if !holds {
            self.machine.complain(what.into());
        }
    }
}

/// Bits flip on as many members as the level survives, at the same rows: hosts get what they wrote, the disks are charged, and a scrub leaves
/// nothing wrong, so that the rest of the members gives everything too.
pub(crate) fn rot_is_mended(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS {
        let mut stage = stage_of(seed, trace.clone(), level, members, 0);
        act(&mut stage, AssembleOptions::default(), |s| async move { s.fill().await });
        let wrong = some(&mut stage, members, tolerance);
        rot_blocks(&wrong, 40, &mut stage.rng);
        act(&mut stage, AssembleOptions::default(), move |s| async move {
            s.verify().await;
            s.complain_unless(s.mismatches() > 0, "nobody noticed what rotted");
            s.scrubbed().await;
            let still = wrong.iter().any(|bay| bay.drive.is_wrong());
            s.complain_unless(!still, "a scrub left something wrong");
            let before = s.mismatches();
            s.machine.audit().await;
            s.complain_unless(s.mismatches() == before, "what was mended is wrong again");
            let rest = s.machine.world.shelf.all();
            let mended: Vec<&str> = wrong.iter().map(|bay| bay.drive.name()).collect();
            let others = rest.iter().filter(|bay| !mended.contains(&bay.drive.name()));
            // Of a striped mirror those may go that are no copies of each other: one.
            others.take(tolerance).for_each(|bay| s.kill(bay.drive.name()));
            s.verify().await;
        });
    }
}

/// Without redundancy what rotted is an error, of exactly its own blocks, until a host writes them again; and nothing else suffers.
pub(crate) fn rot_without_redundancy(seed: u64, trace: Trace) {
    for (level, members, lost) in [(Level::Raid0, 2, 0), (Level::Raid1, 2, 1), (Level::Raid5, 3, 1)]
    {
        let mut stage = stage_of(seed, trace.clone(), level, members, 0);
        act(&mut stage, AssembleOptions::default(), |s| async move { s.fill().await });
        let bays = stage.world.shelf.all();
        for bay in bays.iter().rev().take(lost) {
            bay.withheld.set(true);
        }
        bays[0].drive.rot(layout(&bays[0]).data.block(5) + 512);
        act(&mut stage, degraded(), move |s| async move {
            let readable = s.readable().await;
            let bad: Vec<usize> = (0..readable.len()).filter(|at| !readable[*at]).collect();
            // RAID5: the block itself, or one of its row on the member that is gone, or both.
            let most = if level == Level::Raid5 { 2 } else { 1 };
            s.complain_unless(
                (1..=most).contains(&bad.len()),
                &format!("blocks {bad:?} cannot be read, of one that rotted"),
            );
            if level != Level::Raid5 {
                for block in &bad {
                    s.write(*block as u64 * BLOCK, BLOCK).await;
                }
                s.verify().await;
                s.complain_unless(!bays[0].drive.is_wrong(), "the write did not reach the disk");
            }
        });
    }
}

/// A disk answers a write and does not do it, or does it elsewhere: both places are found out when they are read.
pub(crate) fn writes_go_astray(seed: u64, trace: Trace) {
    for (level, members, _) in LEVELS {
        for misdirected in [false, true] {
            let mut stage = stage_of(seed, trace.clone(), level, members, 0);
            let bay = Rc::clone(&some(&mut stage, members, 1)[0]);
            act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                s.fill().await;
                let mut rounds = 0;
                while !bay.drive.is_wrong() && rounds < 100 {
                    match misdirected {
                        true => bay.drive.faults_mut().misdirect_writes(1),
                        false => bay.drive.faults_mut().lose_writes(1),
                    }
                    s.scribble(3).await;
                    rounds += 1;
                }
                bay.drive.faults_mut().disarm_falsehoods();
                s.complain_unless(bay.drive.is_wrong(), "no write went astray");
                s.flush().await;
                s.verify().await;
                s.scrubbed().await;
                s.complain_unless(!bay.drive.is_wrong(), "a scrub left something wrong");
                s.complain_unless(s.mismatches() > 0, "nobody noticed the write that went astray");
                s.machine.audit().await;
            });
        }
    }
}

/// A disk with rotten blocks is copied to a spare, directly or under a shield, or rebuilt from a peer that rots: no block that does not fit is ever
/// copied; what cannot be told is listed, and nothing else.
pub(crate) fn rot_is_never_copied(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS {
        let mut stage = stage_of(seed, trace.clone(), level, members, 1);
        act(&mut stage, AssembleOptions::default(), |s| async move { s.fill().await });
        let first = stage.world.shelf.all()[0].clone();
        rot_blocks(&[first], 40, &mut stage.rng);
        act(&mut stage, AssembleOptions::default(), move |s| async move {
            let replaced = s.machine.array.replace(DiskNumber(1), None, 0).await;
            s.must(replaced, "replace");
            s.expect(members as u32 + 1, DiskState::InSync).await;
            let lost: u64 = s.machine.array.report().groups.iter().map(|g| g.lost_blocks).sum();
            s.complain_unless(lost == 0, "a block was lost that its peers have");
            s.verify().await;
            let others: Vec<String> = (2..2 + tolerance).map(|n| format!("d{n}")).collect();
            others.iter().for_each(|name| s.kill(name));
            s.verify().await;
        });
    }
    // A peer rots while a member is gone: what needs it is lost, and only that.
    let mut stage = stage_of(seed, trace, Level::Raid5, 3, 1);
    act(&mut stage, AssembleOptions::default(), |s| async move { s.fill().await });
    let peer = stage.world.shelf.all()[1].clone();
    peer.drive.rot(layout(&peer).data.block(9));
    act(&mut stage, AssembleOptions::default(), |s| async move {
        s.kill("d1");
        let failed = s.machine.array.fail_disk(DiskNumber(1)).await;
        s.must(failed, "fail");
        s.expect(4, DiskState::InSync).await;
        let lost: u64 = s.machine.array.report().groups.iter().map(|g| g.lost_blocks).sum();
        s.complain_unless(lost == 1, &format!("{lost} blocks are listed lost, of one"));
        let bad = s.readable().await.iter().filter(|readable| !**readable).count();
        s.complain_unless((1..=2).contains(&bad), &format!("{bad} blocks cannot be read"));
    });
}

/// What was flushed rots, and the machine had crashed before it could note that nothing was under way any more: a block that does not fit is not taken
/// for a write that was cut where anything proves it (rule J4).
pub(crate) fn rot_after_a_crash(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS {
        for round in 0..3 {
            let mut stage = stage_of(seed * 10 + round, trace.clone(), level, members, 0);
            act(&mut stage, AssembleOptions::default(), |s| async move { s.fill().await });
            stage.run(AssembleOptions::default(), None, |machine| async move {
                let mut s = Script::new(&machine);
                s.scribble(4).await;
                // Full stripes too, which the journal tells by checksums alone.
                s.write(0, s.size() / 4).await;
                s.flush().await;
            });
            stage.end(false);
            let wrong = some(&mut stage, members, tolerance);
            rot_blocks(&wrong, 60, &mut stage.rng);
            act(&mut stage, AssembleOptions::default(), |s| async move {
                s.verify().await;
                s.scrubbed().await;
                s.machine.audit().await;
            });
        }
    }
}

/// The checksums themselves cannot be read, or rot: what they stand for is had all the same, from the peers or as it is.
pub(crate) fn checksums_are_damaged(seed: u64, trace: Trace) {
    for (level, members, _) in LEVELS.into_iter().chain([(Level::Raid0, 2, 0)]) {
        for everywhere in [true, false] {
            let mut stage = stage_of(seed, trace.clone(), level, members, 0);
            act(&mut stage, AssembleOptions::default(), |s| async move { s.fill().await });
            let bays = stage.world.shelf.all();
            let region = layout(&bays[0]).checksums;
            for bay in bays.iter().take(if everywhere { members } else { 1 }) {
                bay.drive.faults_mut().spoil(region.offset..region.offset + 512);
            }
            act(&mut stage, AssembleOptions::default(), |mut s| async move {
                s.verify().await;
                s.complain_unless(s.mismatches() == 0, "nothing was found out about any block");
                s.scribble(30).await;
                s.flush().await;
                s.verify().await;
            });
            if level == Level::Raid0 {
                continue;
            }
            for sector in 0..8 {
                bays[members - 1].drive.rot(region.offset + sector * 512);
            }
            act(&mut stage, AssembleOptions::default(), |s| async move {
                s.verify().await;
                s.scrubbed().await;
                s.machine.audit().await;
            });
        }
    }
}

/// As many members as may be are missing, the checksums of another cannot be read, and hosts write before its blocks are read: parity that cannot be compared is
/// believed, not given up, since the missing members' blocks are in it.
pub(crate) fn checksums_beside_missing_members(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS {
        let mut stage = stage_of(seed, trace.clone(), level, members, 0);
        act(&mut stage, AssembleOptions::default(), |s| async move { s.fill().await });
        let bays = stage.world.shelf.all();
        let region = layout(&bays[members - 1]).checksums;
        bays[members - 1].drive.faults_mut().spoil(region.offset..region.offset + 512);
        bays.iter().take(tolerance).for_each(|bay| bay.withheld.set(true));
        act(&mut stage, degraded(), |mut s| async move {
            for at in (0..s.size()).step_by(9 * BLOCK as usize) {
                s.write(at, BLOCK).await;
            }
            s.scribble(20).await;
            s.flush().await;
            s.verify().await;
        });
        act(&mut stage, degraded(), |s| async move { s.verify().await });
    }
}
