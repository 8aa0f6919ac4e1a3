//! The shapes of simulated arrays: levels, members, chunks, disks and volumes, drawn from a seed.
//!
//! Owns the draw and the arithmetic of what a level survives. Invariant: shapes are small (disks of 2 to 4 MiB, at most
//! 9 members), so that a run touches much of them; the engine's code is the same at any size.

use forestall_engine::{BLOCK_SIZE, JournalMode, Level};

use crate::rng::Rng;

/// One group to make.
#[derive(Clone, Debug)]
pub struct GroupShape {
    /// Its level.
    pub level: Level,
    /// How many members.
    pub members: usize,
    /// Chunk in bytes.
    pub chunk: u32,
    /// Its journal.
    pub journal: JournalMode,
    /// Whether its blocks have checksums.
    pub checksums: bool,
    /// How many volumes share it; none in a group for secondaries.
    pub volumes: usize,
}

impl GroupShape {
    /// Data bytes in one stripe.
    #[must_use]
    pub fn stripe_bytes(&self) -> u64 {
        u64::from(self.chunk) * data_members(self.level, self.members)
    }
}

/// One array to make.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Its groups; one without volumes takes secondaries.
    pub groups: Vec<GroupShape>,
    /// Disks beside the members.
    pub spares: usize,
    /// Legs of a work-disk set to begin with; 0 if there is none.
    pub legs: usize,
    /// The second group has a work volume.
    pub work_volume: bool,
    /// Sizes of all disks in bytes, members of the groups first.
    pub disk_sizes: Vec<u64>,
}

/// Members' worth of data in a stripe.
#[must_use]
pub fn data_members(level: Level, members: usize) -> u64 {
    let members = members as u64;
    match level {
        Level::Raid0 => members,
        Level::Raid1 => 1,
        Level::Raid5 => members - 1,
        Level::Raid6 => members - 2,
        Level::Raid10 => members / 2,
    }
}

/// Whether a group keeps its parity in step only while it runs: without a journal a crash together with a lost member may lose data
/// that nobody was writing (the write hole).
#[must_use]
pub fn has_write_hole(level: Level, journal: JournalMode) -> bool {
    matches!(level, Level::Raid5 | Level::Raid6) && journal == JournalMode::Off
}

/// Whether a group survives with the members that `impaired` marks, in slot order, gone.
#[must_use]
pub fn survives(level: Level, impaired: &[bool]) -> bool {
    let gone = impaired.iter().filter(|&&i| i).count();
    match level {
        Level::Raid0 => gone == 0,
        Level::Raid1 => gone < impaired.len(),
        Level::Raid5 => gone <= 1,
        Level::Raid6 => gone <= 2,
        Level::Raid10 => impaired.chunks(2).all(|pair| pair.iter().any(|&i| !i)),
    }
}

impl GroupShape {
    /// How many members may fail, whichever they are.
    #[must_use]
    pub fn tolerance(&self) -> usize {
        match self.level {
            Level::Raid0 => 0,
            Level::Raid1 => self.members - 1,
            Level::Raid5 | Level::Raid10 => 1,
            Level::Raid6 => 2,
        }
    }

    /// A group of `level` with a random number of members.
    pub fn random_of(level: Level, rng: &mut Rng) -> Self {
        let members = match level {
            Level::Raid0 => rng.within(1..5),
            Level::Raid1 => rng.pick(&[2, 2, 2, 3, 4]),
            Level::Raid5 => rng.within(3..7),
            Level::Raid6 => rng.within(4..9),
            Level::Raid10 => rng.pick(&[4, 4, 6]),
        };
        let chunk = rng.pick(&[4, 8, 16, 32, 64]) * 1024;
        let volumes = rng.pick(&[1, 1, 2, 3]);
        // Without a journal nothing is lost together with a crash; most groups keep one.
        let (partial, full) = (JournalMode::Partial, JournalMode::Full);
        let modes = [partial, partial, partial, full, full, JournalMode::Off];
        let journal = match level {
            Level::Raid5 | Level::Raid6 => rng.pick(&modes),
            Level::Raid0 | Level::Raid1 | Level::Raid10 => JournalMode::Off,
        };
        let checksums = rng.below(4) > 0;
        Self { level, members: members as usize, chunk, journal, checksums, volumes }
    }
}

impl GroupShape {
    /// A group that survives as much as each of `others` and, unless `level` forbids it, has room for copies of a whole one's volumes.
    fn for_secondaries(level: Option<Level>, others: &[Self], rng: &mut Rng) -> Self {
        let tolerance = others.iter().map(Self::tolerance).max().unwrap_or(0);
        let data = others.iter().map(|g| data_members(g.level, g.members)).max().unwrap_or(1);
        let data = data as usize + 1;
        let level = level.unwrap_or(match tolerance {
            0 => rng.pick(&[Level::Raid0, Level::Raid5]),
            1 => rng.pick(&[Level::Raid5, Level::Raid5, Level::Raid10]),
            _ => Level::Raid6,
        });
        let members = match level {
            Level::Raid0 => data,
            Level::Raid1 => tolerance + 1,
            Level::Raid5 => data + 1,
            Level::Raid6 => data + 2,
            Level::Raid10 => 2 * data,
        };
        Self { members, ..Self::random_of(level, rng) }
    }
}

impl Shape {
    /// A shape; of `level` alone, if one is given.
    pub fn random(level: Option<Level>, rng: &mut Rng) -> Self {
        let levels =
            [Level::Raid0, Level::Raid1, Level::Raid1, Level::Raid5, Level::Raid6, Level::Raid10];
        let count = if rng.percent(35) { 2 } else { 1 };
        let mut groups: Vec<_> = (0..count)
            .map(|_| GroupShape::random_of(level.unwrap_or_else(|| rng.pick(&levels)), rng))
            .collect();
        let work_volume = groups.len() == 2 && rng.percent(60);
        if rng.percent(35) {
            let fitting = GroupShape::for_secondaries(level, &groups, rng);
            let any = GroupShape::random_of(level.unwrap_or_else(|| rng.pick(&levels)), rng);
            let group = if rng.percent(80) { fitting } else { any };
            groups.push(GroupShape { volumes: 0, ..group });
        }
        let spares = rng.pick(&[0, 1, 1, 2]);
        let disks = groups.iter().map(|g| g.members).sum::<usize>() + spares;
        let base = rng.within(512..1024) * BLOCK_SIZE;
        let same = rng.coin();
        let size = |rng: &mut Rng| if same { base } else { base + rng.below(16) * BLOCK_SIZE };
        let mut disk_sizes: Vec<u64> = (0..disks).map(|_| size(rng)).collect();
        // A spare smaller than what the members use would be refused.
        let largest = disk_sizes.iter().copied().max().unwrap_or(base);
        disk_sizes[disks - spares..].fill(largest);
        let tolerance = groups.iter().map(|g| g.tolerance()).max().unwrap_or(0);
        // One leg less than what the group survives is refused, and the writes go home.
        let legs = match rng.below(10) {
            0..3 => 0,
            3..9 => tolerance + 1,
            _ => tolerance.max(1),
        };
        Self { groups, spares, legs, work_volume, disk_sizes }
    }
}

impl Shape {
    /// Drops all groups but the first `count`, at least one, with their disks.
    pub fn keep_groups(&mut self, count: usize) {
        let gone = self.groups.split_off(count.clamp(1, self.groups.len()));
        let kept: usize = self.groups.iter().map(|g| g.members).sum();
        let members: usize = gone.iter().map(|g| g.members).sum();
        self.disk_sizes.drain(kept..kept + members);
        self.work_volume &= self.groups.len() > 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_survive_what_they_should() {
        assert!(!survives(Level::Raid0, &[true]));
        assert!(survives(Level::Raid1, &[true, true, false]));
        assert!(!survives(Level::Raid1, &[true, true]));
        assert!(survives(Level::Raid5, &[true, false, false]));
        assert!(!survives(Level::Raid5, &[true, true, false]));
        assert!(survives(Level::Raid6, &[true, true, false, false]));
        assert!(survives(Level::Raid10, &[true, false, false, true]));
        assert!(!survives(Level::Raid10, &[true, true, false, false]));
    }

    #[test]
    fn every_level_and_two_groups_are_drawn() {
        let shapes: Vec<_> =
            (0..200).map(|seed| Shape::random(None, &mut Rng::new(seed, 0))).collect();
        for level in [Level::Raid0, Level::Raid1, Level::Raid5, Level::Raid6, Level::Raid10] {
            assert!(shapes.iter().any(|s| s.groups[0].level == level));
        }
        assert!(shapes.iter().any(|s| s.groups.iter().filter(|g| g.volumes > 0).count() == 2));
        assert!(shapes.iter().any(|s| s.groups.iter().any(|g| g.volumes == 0)));
        assert!(
            shapes
                .iter()
                .all(|s| s.disk_sizes.iter().all(|d| d % BLOCK_SIZE == 0 && *d >= 2 << 20))
        );
    }
}
