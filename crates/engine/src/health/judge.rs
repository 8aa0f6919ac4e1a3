//! Judging the members of one group together.
//!
//! Owns the verdict of each disk and its reason. Invariants: a verdict never takes redundancy away, it only says what to do; where two members
//! are past the lower mark the threshold of both is the midpoint between the mark and a full bucket (the second failure is what loses data);
//! a disk once found ailing stays so until it is cleared, since its errors made somebody act.

use serde::{Deserialize, Serialize};

use super::{FULL, LOWER_MARK, Record, percent};
use crate::ids::DiskNumber;

/// What is thought of a disk; the words of T3.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing to say.
    #[default]
    Healthy,
    /// Past the lower mark.
    Watched,
    /// Not read for a while, since it is much slower than its peers.
    SatOut,
    /// Expected to fail, still answering.
    Ailing,
    /// No longer used.
    Out,
}

impl Verdict {
    /// The word in T3.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Healthy => "HEALTHY",
            Self::Watched => "WATCHED",
            Self::SatOut => "SAT OUT",
            Self::Ailing => "AILING",
            Self::Out => "OUT",
        }
    }
}

/// One disk as its group's judge sees it.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// The disk.
    pub disk: DiskNumber,
    /// What it did.
    pub record: Record,
    /// Sat out of reads now.
    pub sat_out: bool,
    /// Found ailing before and not cleared since.
    pub was_ailing: bool,
}

/// What was found of one disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The disk.
    pub disk: DiskNumber,
    /// The level that counts as ailing for it, in millionths.
    pub threshold: u64,
    /// The verdict.
    pub verdict: Verdict,
    /// Why, in words with the figures that led to it.
    pub reason: String,
}

impl Finding {
    /// The verdict and its reason in words, for the disk at `path`; `part` is what it is besides a member, if it is something else.
    #[must_use]
    pub fn words(&self, path: &str, part: Option<&str>) -> String {
        let verdict = self.verdict.word().to_lowercase();
        let part = part.map_or_else(String::new, |part| format!(", {part},"));
        format!("disk {} ({path}){part} is {verdict}: {}", self.disk, self.reason)
    }
}

/// Judges disks that share a fate: the members of one group, or one disk that is in none.
#[must_use]
pub fn judge(members: &[Member]) -> Vec<Finding> {
    let past_mark = members.iter().filter(|m| m.record.level >= LOWER_MARK).count();
    let threshold = if past_mark >= 2 { LOWER_MARK.midpoint(FULL) } else { FULL };
    members.iter().map(|member| find(member, past_mark, threshold)).collect()
}

fn find(member: &Member, past_mark: usize, threshold: u64) -> Finding {
    let Member { disk, record, .. } = *member;
    let level = record.level;
    let figures = format!(
        "level {:.1} % of {:.1} % after {}",
        percent(level),
        percent(threshold),
        record.words()
    );
    let (verdict, reason) = if level >= threshold {
        let lowered = if threshold < FULL {
            format!("; {past_mark} members of its group err, so the threshold is lower")
        } else {
            String::new()
        };
        (Verdict::Ailing, format!("{figures}{lowered}"))
    } else if member.was_ailing {
        (Verdict::Ailing, format!("was ailing and not cleared since; {figures}"))
    } else if member.sat_out {
        (Verdict::SatOut, format!("much slower than its peers; {figures}"))
    } else if level >= LOWER_MARK {
        (
            Verdict::Watched,
            format!("past the lower mark of {:.1} %; {figures}", percent(LOWER_MARK)),
        )
    } else if record.is_clean() {
        (Verdict::Healthy, "no errors".into())
    } else {
        (Verdict::Healthy, figures)
    };
    Finding { disk, threshold, verdict, reason }
}

/// Whether so many disks look ill at once that something they share is likelier than all of them: then nothing is done by itself.
///
/// `ailing` of `disks` in service; one is always believed, and more as long as they are at most a quarter (at least two).
#[must_use]
pub fn brake(ailing: usize, disks: usize) -> bool {
    ailing > (disks / 4).max(2)
}
