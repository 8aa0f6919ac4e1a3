//! Stories of errors of members that are met on the way to something else: each counts once, and what did not read is written anew.
//!
//! Owns the scripts; [`crate::scenarios`] lists them. Invariant: only as many places are bad as the level survives, unless the story says otherwise.

use forestall_engine::health::Mode;
use forestall_engine::{AssembleOptions, BLOCK_SIZE, DiskNumber, Level};

use crate::falsehoods::layout;
use crate::scenarios::{act, degraded};
use crate::script::{Script, stage_of};
use crate::trace::Trace;

const SECOND: u64 = 1_000_000_000;

impl Script {
    /// Errors of blocks that were counted against a disk, once what is under way in the background has ended.
    async fn errors_of(&self, disk: u32) -> u64 {
        self.machine.pause(SECOND).await;
        let report = self.machine.array.report();
        let found = report.disks.iter().find(|d| d.number == DiskNumber(disk));
        let errors = found.expect("a disk of the group").errors;
        errors.recovered_reads + errors.unrecovered_reads + errors.checksums
    }

    /// Where the first block of a disk's data space lies.
    fn first_block(&self, disk: u32) -> u64 {
        layout(&self.bay(&format!("d{disk}"))).data.offset
    }

    /// Lets the first block of a disk's data space not read, or hold something else.
    fn spoil_first_block(&self, disk: u32, rots: bool) {
        let (bay, at) = (self.bay(&format!("d{disk}")), self.first_block(disk));
        if rots {
            bay.drive.rot(at);
        } else {
            bay.drive.faults_mut().spoil(at..at + 512);
        }
    }
}

/// With a member missing its blocks are rebuilt from peers of which one does not read everywhere, parity too: each error is counted against that disk, once,
/// for what does not read is written anew.
pub(crate) fn errors_of_peers_count(seed: u64, trace: Trace) {
    let mut stage = stage_of(seed, trace, Level::Raid6, 5, 0);
    act(&mut stage, AssembleOptions::default(), move |s| async move {
        s.must(s.machine.array.set_mode(Mode::Advise).await, "policy set advise");
        s.write(0, s.size()).await;
        s.flush().await;
        s.kill("d1");
        s.verify().await;
        let (peer, first) = (s.bay("d2"), s.first_block(2));
        let stripes = s.size() / (3 * s.chunk());
        for stripe in 0..stripes {
            let at = first + stripe * s.chunk();
            peer.drive.faults_mut().spoil(at..at + 512);
        }
        s.verify().await;
        // One stripe in five has its Q there, which nobody needs.
        let (counted, least) = (s.errors_of(2).await, stripes * 4 / 5);
        s.verify().await;
        let again = s.errors_of(2).await;
        if counted < least || again != counted {
            let told = format!("{counted} errors, then {again} of {stripes} stripes");
            s.machine.complain(told);
        }
    });
}

/// One block of one member does not read, or rots, and hosts write beside it or read what a missing member held, block by block, again and again: its error
/// counts once, and it is written anew.
pub(crate) fn each_error_counts_once(seed: u64, trace: Trace) {
    for rots in [false, true] {
        let mut met = [0, 0];
        for (disk, column) in (2..=5).flat_map(|disk| (0..3).map(move |column| (disk, column))) {
            for (reads, met) in [false, true].into_iter().zip(&mut met) {
                let mut stage = stage_of(seed, trace.clone(), Level::Raid6, 5, 0);
                let counted = std::rc::Rc::<std::cell::Cell<u64>>::default();
                let told = counted.clone();
                act(&mut stage, AssembleOptions::default(), move |s| async move {
                    s.write(0, s.size()).await;
                    s.flush().await;
                    if reads {
                        s.kill("d1");
                        s.verify().await;
                    }
                    s.spoil_first_block(disk, rots);
                    for _ in 0..6 {
                        let at = column * s.chunk();
                        match reads {
                            true => s.must(s.host.read(at, BLOCK_SIZE).await, "a read"),
                            false => s.write(at + 1024, 512).await,
                        }
                        told.set(s.errors_of(disk).await);
                    }
                    s.verify().await;
                });
                if counted.get() > 1 {
                    let (errors, what) = (counted.get(), if reads { "reads" } else { "writes" });
                    let told = format!("{errors} errors of disk {disk} under {what} of one place");
                    stage.world.complain(told);
                }
                *met += counted.get();
            }
        }
        if met.contains(&0) {
            stage_of(seed, trace.clone(), Level::Raid6, 5, 0)
                .world
                .complain("nobody counted a block that does not read".into());
        }
    }
}

/// A member is missing and a block of another does not read: what needs it is an error for the host, and one error of the disk for each request.
pub(crate) fn each_failure_counts_once(seed: u64, trace: Trace) {
    for (rots, len) in [(false, BLOCK_SIZE), (false, 16_384), (true, BLOCK_SIZE)] {
        let mut stage = stage_of(seed, trace.clone(), Level::Raid5, 4, 0);
        act(&mut stage, AssembleOptions::default(), move |s| async move {
            s.write(0, s.size()).await;
            s.flush().await;
        });
        stage.world.shelf.all()[0].withheld.set(true);
        act(&mut stage, degraded(), move |s| async move {
            s.spoil_first_block(3, rots);
            let mut failed = 0;
            for column in 0..3 {
                let before = s.errors_of(3).await;
                let read = s.host.read(column * s.chunk(), len).await;
                let counted = s.errors_of(3).await - before;
                failed += u64::from(read.is_err());
                if read.is_err() && counted != 1 {
                    let told = format!("{counted} errors of disk 3 for one request that failed");
                    s.machine.complain(told);
                }
            }
            if failed == 0 {
                s.machine.complain("a block that nothing can give was served".into());
            }
        });
    }
}
