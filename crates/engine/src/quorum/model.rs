//! Every short life of a small array, tried out: commits cut short at any write, restarts with any disks, nothing forced.
//!
//! Owns the model: disks that hold two slots, a server that commits and restarts through the deciders of this module, and the two things that
//! must hold in every state that can be reached. A commit's writes go out at once, so after a crash any subset of them is on the disks.

use std::collections::BTreeSet;

use super::*;
use crate::config::Service;
use crate::format::samples;

/// The configuration slots of a disk; nothing where it is blank or torn.
type Slots = [Option<Configuration>; 2];
/// Those of each disk.
type Disks = Vec<Slots>;

/// Which slot of a disk a configuration is written to.
type Choose = fn(&Slots, written: &Configuration) -> usize;

/// How commits are written.
#[derive(Clone, Copy)]
struct Writes {
    choose: Choose,
    /// A crash may tear a write: it leaves neither what was written nor what was there.
    torn: bool,
}

/// A state that can be reached.
#[derive(Clone)]
struct State {
    disks: Disks,
    /// What the running server wrote last and whether it counted; none while the array is down.
    running: Option<(Configuration, bool)>,
    /// Disks that the running server can reach, as a mask.
    reach: u32,
    /// The last configuration that counted.
    counted: Option<Stamp>,
}

#[derive(Default)]
struct Tally {
    seen: BTreeSet<Vec<u64>>,
    /// States without what the server knows: what may come back is the same for all of these.
    checked: BTreeSet<Vec<u64>>,
    starts: u64,
    refusals: u64,
}

fn mask(config: &Configuration) -> u32 {
    config.in_service().fold(0, |mask, disk| mask | 1 << (disk.0 - 1))
}

fn members(mask: u32) -> Vec<DiskNumber> {
    (0..32).filter(|bit| mask >> bit & 1 == 1).map(|bit| DiskNumber(bit + 1)).collect()
}

fn subsets(of: u32) -> impl Iterator<Item = u32> {
    (0..=of).filter(move |subset| subset & !of == 0)
}

/// What tells states apart.
fn fingerprint(state: &State) -> Vec<u64> {
    let mut words = vec![u64::from(state.reach)];
    let mut put = |slot: Option<&Configuration>| {
        let Some(config) = slot else { return words.push(u64::MAX - 1) };
        words.extend([config.generation, u64::from(mask(config)), config.uncounted.len() as u64]);
        words.push(config.counted_generation);
        words.extend(config.history.iter().flat_map(|run| [run.id, run.first_generation]));
        let bits = |list: &Vec<DiskNumber>| list.iter().fold(0, |mask, disk| mask | 1 << disk.0);
        words.extend(config.uncounted.iter().map(bits));
        words.push(u64::MAX);
    };
    for slot in state.disks.iter().flatten() {
        put(slot.as_ref());
    }
    put(state.running.as_ref().map(|(config, _)| config));
    words.push(state.running.as_ref().map_or(2, |(_, counted)| u64::from(*counted)));
    words.extend(state.counted.iter().flat_map(|stamp| [stamp.history, stamp.generation]));
    words
}

fn start(disks: &Disks, present: u32) -> Result<Choice, Refusal> {
    let found: Vec<FoundDisk> = members(present)
        .into_iter()
        .map(|number| FoundDisk {
            number,
            uuid: samples::disk(number.0).uuid,
            configs: disks[number.0 as usize - 1].iter().flatten().cloned().collect(),
        })
        .collect();
    choose(&found, Options::default())
}

/// Stamps and lists, disk by disk, for messages.
fn brief(disks: &Disks) -> Vec<Vec<(Stamp, u32)>> {
    let slots = |slots: &Slots| slots.iter().flatten().map(|c| (Stamp::of(c), mask(c))).collect();
    disks.iter().map(slots).collect()
}

/// What must hold whatever comes back after a crash in `state`.
///
/// # Errors
/// Words about what does not.
fn check(state: &State, tally: &mut Tally) -> Result<(), String> {
    let all = (1 << state.disks.len()) - 1;
    let starts: Vec<Result<Choice, Refusal>> =
        (0..=all).map(|set| start(&state.disks, set)).collect();
    for (set, result) in starts.iter().enumerate() {
        match result {
            Ok(choice) => {
                tally.starts += 1;
                let newest = state.counted.is_none_or(|stamp| stamp.is_on_line_of(&choice.config));
                if !newest {
                    let started = Stamp::of(&choice.config);
                    return Err(format!(
                        "disks {set:#b} start on {started:?}, {:?} counted",
                        state.counted
                    ));
                }
                let in_service =
                    |seat: &&Seat| choice.config.disk(seat.disk).is_some_and(|d| d.in_service());
                if let Some(seat) = choice.stale_dropped.iter().find(in_service) {
                    return Err(format!(
                        "nobody put disk {} back, yet it counts as such: {:?}",
                        seat.disk,
                        brief(&state.disks)
                    ));
                }
            }
            Err(refusal) => {
                tally.refusals += 1;
                if set as u32 == all {
                    return Err(format!(
                        "nothing was forced, yet all disks are refused: {refusal} {:?}",
                        brief(&state.disks)
                    ));
                }
            }
        }
    }
    for a in subsets(all).filter(|&a| starts[a as usize].is_ok()) {
        for b in subsets(all & !a) {
            if starts[b as usize].is_ok() {
                return Err(format!("{a:#b} and {b:#b} both start: {:?}", brief(&state.disks)));
            }
        }
    }
    Ok(())
}

/// Writes `config` to the disks `to`; what is torn there is lost with what it was to replace.
fn write(disks: &mut Disks, config: &Configuration, to: u32, torn: u32, choose: Choose) {
    for disk in members(to | torn) {
        let slots = &mut disks[disk.0 as usize - 1];
        let whole = torn >> (disk.0 - 1) & 1 == 0;
        slots[choose(slots, config)] = whole.then(|| config.clone());
    }
}

/// All outcomes of writing `config`: any subset of its list that can be reached, and any of the rest torn; whoever is not reached cannot count.
fn commit(
    (state, writes): (&State, Writes),
    config: &Configuration,
    reach: u32,
    depth: u32,
    tally: &mut Tally,
) -> Result<(), String> {
    let wanted = mask(config);
    let mut state = state.clone();
    for disk in members(wanted & reach) {
        // A disk from another line is blanked before it joins.
        for slot in &mut state.disks[disk.0 as usize - 1] {
            *slot = slot.take().filter(|slot| Stamp::of(slot).is_on_line_of(config));
        }
    }
    let outcomes = subsets(wanted & reach).flat_map(|written| {
        let rest = if writes.torn { wanted & reach & !written } else { 0 };
        subsets(rest).map(move |torn| (written, torn))
    });
    for (written, torn) in outcomes {
        let mut next = state.clone();
        write(&mut next.disks, config, written, torn, writes.choose);
        let counted = written == wanted;
        if counted {
            next.counted = Some(Stamp::of(config));
        }
        next.reach = reach;
        next.running = Some((config.clone(), counted));
        explore(&next, writes, depth - 1, tally)?;
        next.running = None;
        explore(&next, writes, depth - 1, tally)?;
    }
    Ok(())
}

fn explore(state: &State, writes: Writes, depth: u32, tally: &mut Tally) -> Result<(), String> {
    let mut key = fingerprint(state);
    key.push(depth.into());
    if !tally.seen.insert(key) {
        return Ok(());
    }
    let down = State { running: None, reach: 0, ..state.clone() };
    if tally.checked.insert(fingerprint(&down)) {
        check(state, tally)?;
    }
    if depth == 0 {
        return Ok(());
    }
    let all = (1 << state.disks.len()) - 1;
    let Some((current, counted)) = &state.running else {
        for present in subsets(all) {
            if let Ok(choice) = start(&state.disks, present) {
                let config = choice.recommit(100 + u64::from(depth), 0);
                commit((state, writes), &config, present, depth, tally)?;
            }
        }
        return Ok(());
    };
    for list in subsets(all).filter(|list| list & !(mask(current) | state.reach) == 0) {
        if may_commit(current, *counted, &members(list)).is_ok() {
            let mut config = successor(current, *counted);
            put_in_service(&mut config, list);
            commit((state, writes), &config, state.reach, depth, tally)?;
        }
    }
    Ok(())
}

fn put_in_service(config: &mut Configuration, list: u32) {
    let Stamp { history, generation } = Stamp::of(config);
    for disk in &mut config.disks {
        let reason = crate::config::DropReason::Failed;
        let dropped = Service::Dropped { history, generation, reason, at_ms: 0 };
        let listed = list >> (disk.number.0 - 1) & 1 == 1;
        disk.service = if listed { Service::InService } else { dropped };
    }
}

/// Explores all lives of `depth` commits, starts included, of an array of `size` disks of which the first `members` are in service.
fn lives(size: u32, members: u32, depth: u32, writes: Writes) -> Result<Tally, String> {
    let mut config = samples::configuration();
    config.disks = (1..=size).map(samples::disk).collect();
    config.disks.iter_mut().for_each(|disk| disk.path_hint.clear());
    (config.groups, config.volumes, config.uncounted) = (Vec::new(), Vec::new(), Vec::new());
    config.counted_generation = 0;
    config.generation = 1;
    config.history = vec![crate::config::HistoryEntry { id: 1, first_generation: 1 }];
    put_in_service(&mut config, (1 << members) - 1);
    let mut disks = vec![[None, None]; size as usize];
    write(&mut disks, &config, (1 << members) - 1, 0, writes.choose);
    let counted = Some(Stamp::of(&config));
    let state = State { disks, running: Some((config, true)), reach: (1 << size) - 1, counted };
    let mut tally = Tally::default();
    explore(&state, writes, depth, &mut tally)?;
    assert!(tally.starts > 0 && tally.refusals > 0, "the model reaches both answers");
    Ok(tally)
}

const WHOLE: Writes = Writes { choose: older_slot, torn: false };
const TORN: Writes = Writes { choose: older_slot, torn: true };

#[test]
fn two_disks_never_part_by_themselves() {
    for members in 1..=2 {
        lives(2, members, 4, TORN).unwrap();
    }
}

#[test]
fn three_disks_never_part_by_themselves() {
    for members in 1..=3 {
        lives(3, members, 3, WHOLE).unwrap();
        lives(3, members, 2, TORN).unwrap();
    }
}

#[test]
fn four_disks_never_part_by_themselves() {
    for members in 1..=4 {
        lives(4, members, 2, WHOLE).unwrap();
    }
}

#[test]
fn five_disks_never_part_by_themselves() {
    for members in 1..=5 {
        lives(5, members, 1, WHOLE).unwrap();
    }
}

/// Rule C1 says the *older* slot: that of the generation's number is another one once a generation was torn.
#[test]
fn c1_slots_by_number_lose_both_to_two_crashes() {
    let by_number: Choose = |_, written| (written.generation % 2) as usize;
    let found = lives(2, 2, 3, Writes { choose: by_number, torn: true }).err();
    assert!(found.is_some(), "the model does not see it");
}
