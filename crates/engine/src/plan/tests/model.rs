//! One stripe in memory: executes plans with a byte for each block, and knows what every block should hold.
//!
//! Blocks outside the view hold rubbish on the model's disks, so that a plan which builds on one shows.

use std::ops::Range;

use super::super::*;
use crate::ids::BLOCK_SIZE;

/// A block of every slot, in each row of blocks.
type Blocks = Vec<Vec<u8>>;

const RUBBISH: u8 = 0xA5;

pub struct Model {
    pub geometry: Geometry,
    pub stripe: Stripe,
    /// What each data column holds.
    data: Blocks,
    /// What is on each slot.
    disk: Blocks,
    /// What can be used, by row of blocks.
    views: Vec<View>,
}

impl Model {
    pub fn new(geometry: Geometry, stripe: Stripe, view: View) -> Self {
        let rows = geometry.chunk() as usize / BLOCK_SIZE as usize;
        let byte = |column: usize, row: usize| (29 * column + 83 * row + 7) as u8;
        let data: Blocks = (0..geometry.data_columns())
            .map(|column| (0..rows).map(|row| byte(column, row)).collect())
            .collect();
        let mut disk = encode(&geometry, stripe, &data);
        for slot in SlotSet::first(geometry.members()).minus(view.readable).iter() {
            disk[index(slot)].iter_mut().for_each(|byte| *byte ^= RUBBISH);
        }
        Self { geometry, stripe, data, disk, views: vec![view; rows] }
    }

    /// What `slot` holds in block row `row`, got as `plan` says; `None` if lost.
    fn execute_read(&self, slot: Slot, row: usize, plan: ReadPlan) -> Option<u8> {
        match plan {
            ReadPlan::Direct(slots) => {
                let bytes: Vec<u8> = slots.iter().map(|from| self.read(from, row)).collect();
                assert!(!bytes.is_empty() && bytes.iter().all(|byte| *byte == bytes[0]));
                Some(bytes[0])
            }
            ReadPlan::Rebuild { reads } => {
                let blocks = self.decode(reads, &[slot], row..row + 1);
                Some(blocks[index(slot)][0])
            }
            ReadPlan::Lost => None,
        }
    }

    fn read(&self, slot: Slot, row: usize) -> u8 {
        assert!(self.views[row].readable.contains(slot), "slot {slot} is not readable");
        self.disk[index(slot)][row]
    }

    /// All slots' blocks in `rows`: those in `reads` as read, `wanted` computed from them, the others empty.
    fn decode(&self, reads: SlotSet, wanted: &[Slot], rows: Range<usize>) -> Blocks {
        let (geometry, stripe) = (&self.geometry, self.stripe);
        let order = code_order(geometry, stripe);
        let place = |slot: &Slot| order.iter().position(|s| s == slot).unwrap();
        let read =
            |slot: &Slot| -> Vec<u8> { rows.clone().map(|row| self.read(*slot, row)).collect() };
        let mut blocks: Blocks = order
            .iter()
            .map(|slot| if reads.contains(*slot) { read(slot) } else { vec![0; rows.len()] })
            .collect();
        let missing: Vec<usize> =
            order.iter().filter(|slot| !reads.contains(**slot)).map(place).collect();
        let wanted: Vec<usize> = wanted.iter().map(place).collect();
        let mut columns: Vec<&mut [u8]> = blocks.iter_mut().map(Vec::as_mut_slice).collect();
        match geometry.parity_columns() {
            1 => forestall_parity::recover_xor(&mut columns, &missing, &wanted).unwrap(),
            2 => forestall_parity::recover_pq(&mut columns, &missing, &wanted).unwrap(),
            _ => panic!("a rebuild without parity"),
        }
        let mut by_slot = vec![Vec::new(); order.len()];
        for (slot, block) in order.iter().zip(blocks) {
            by_slot[index(*slot)] = block;
        }
        by_slot
    }

    /// Checks every column and slot, as planned in each row: what is given is true, and what `expected` says (by column
    /// and row) is given.
    pub fn check(&self, expected: impl Fn(usize, usize) -> bool) {
        let truth = encode(&self.geometry, self.stripe, &self.data);
        for (row, view) in self.views.iter().enumerate() {
            for (column, blocks) in self.data.iter().enumerate() {
                let plan = plan_read(&self.geometry, self.stripe, column, *view);
                let slot = self.slots(column).iter().next().unwrap();
                match self.execute_read(slot, row, plan) {
                    Some(byte) => assert_eq!(byte, blocks[row], "column {column}: {plan:?}"),
                    None => assert!(!expected(column, row), "column {column} is lost: {view:?}"),
                }
            }
            for slot in SlotSet::first(self.geometry.members()).iter() {
                let plan = plan_rebuild_slot(&self.geometry, self.stripe, slot, *view);
                let byte = self.execute_read(slot, row, plan);
                let true_byte = truth[index(slot)][row];
                assert!(byte.is_none_or(|byte| byte == true_byte), "slot {slot}: {plan:?}");
                let on_disk = self.disk[index(slot)][row];
                assert!(!view.readable.contains(slot) || on_disk == true_byte, "slot {slot} lies");
            }
        }
    }

    fn slots(&self, column: usize) -> SlotSet {
        self.geometry.copies(self.stripe, column)
    }

    /// Whether a column can be got now.
    pub fn readable(&self, column: usize, row: usize) -> bool {
        plan_read(&self.geometry, self.stripe, column, self.views[row]) != ReadPlan::Lost
    }

    /// Executes a write of `within`, with bytes that differ from the old ones in every block.
    pub fn write(&mut self, within: Range<u64>, plan: &WritePlan) {
        let chunk = u64::from(self.geometry.chunk());
        let mut wanted: Vec<(usize, usize)> = within
            .step_by(BLOCK_SIZE as usize)
            .map(|at| ((at / chunk) as usize, (at % chunk / BLOCK_SIZE) as usize))
            .collect();
        let mut end = 0;
        for band in &plan.bands {
            assert!(end <= band.rows.start && !band.rows.is_empty(), "bands ascend");
            end = band.rows.end;
            let rows = block_rows(band);
            for column in band.columns.iter() {
                for row in rows.clone() {
                    let at = wanted.iter().position(|place| *place == (column, row));
                    wanted.swap_remove(at.expect("a block is written once and was asked for"));
                    self.data[column][row] = !self.data[column][row].wrapping_mul(3);
                }
            }
            self.write_band(band);
        }
        assert!(wanted.is_empty(), "blocks {wanted:?} are not written");
    }

    /// Executes a band whose new data is already in `data`.
    fn write_band(&mut self, band: &Band) {
        let rows = block_rows(band);
        let parity = self.new_parity(band);
        let parity_slots = [self.geometry.p_slot(self.stripe), self.geometry.q_slot(self.stripe)];
        let mut done = SlotSet::EMPTY;
        for ((slot, blocks), write) in
            parity_slots.into_iter().zip(parity).zip([band.write_p, band.write_q])
        {
            if write {
                self.put(slot.unwrap(), rows.start, &blocks);
                done = done.with(slot.unwrap());
            }
        }
        for slot in band.data_writes.iter() {
            let Role::Data(column) = self.geometry.role(self.stripe, slot) else {
                panic!("slot {slot} holds no data");
            };
            assert!(band.columns.contains(column), "column {column} is not written");
            let blocks = self.data[column][rows.clone()].to_vec();
            self.put(slot, rows.start, &blocks);
            done = done.with(slot);
        }
        for view in &mut self.views[rows] {
            assert!(band.stale.minus(view.readable.minus(view.writable)).is_empty());
            view.readable = view.readable.minus(band.stale).or(done);
            view.preferred = view.preferred.and(view.readable);
        }
    }

    /// P and Q of the band's rows, computed as its method says from nothing but its reads and the new data.
    fn new_parity(&self, band: &Band) -> [Vec<u8>; 2] {
        let rows = block_rows(band);
        let columns = 0..self.geometry.data_columns();
        let read = |slot: Slot| -> Vec<u8> {
            assert!(band.reads.contains(slot), "slot {slot} is not among the reads");
            rows.clone().map(|row| self.read(slot, row)).collect()
        };
        let only = |column: usize| self.slots(column).iter().next().unwrap();
        let new = |column: usize| self.data[column][rows.clone()].to_vec();
        assert!(band.method == Method::Recover || band.recover.is_empty());
        let data: Blocks = match band.method {
            Method::Plain | Method::DataOnly => {
                assert!(band.reads.is_empty() && !band.write_p && !band.write_q);
                return [Vec::new(), Vec::new()];
            }
            Method::Full => {
                assert!(band.reads.is_empty());
                columns.map(new).collect()
            }
            Method::ReadModifyWrite => return self.changed_parity(band, read),
            Method::Reconstruct => {
                columns
                    .map(|column| {
                        if band.columns.contains(column) { new(column) } else { read(only(column)) }
                    })
                    .collect()
            }
            Method::Recover => {
                assert!(!band.recover.is_empty());
                let wanted: Vec<Slot> = band.recover.iter().map(only).collect();
                let blocks = self.decode(band.reads, &wanted, rows.clone());
                let old = |column: usize| {
                    assert!(band.recover.contains(column) || band.reads.contains(only(column)));
                    blocks[index(only(column))].clone()
                };
                columns
                    .map(
                        |column| {
                            if band.columns.contains(column) { new(column) } else { old(column) }
                        },
                    )
                    .collect()
            }
        };
        parity(self.geometry.parity_columns(), &data)
    }

    fn changed_parity(&self, band: &Band, read: impl Fn(Slot) -> Vec<u8>) -> [Vec<u8>; 2] {
        let (p_slot, q_slot) =
            (self.geometry.p_slot(self.stripe), self.geometry.q_slot(self.stripe));
        let mut p = band.write_p.then(|| read(p_slot.unwrap()));
        let mut q = band.write_q.then(|| read(q_slot.unwrap()));
        for column in band.columns.iter() {
            let old = read(self.slots(column).iter().next().unwrap());
            let new = &self.data[column][block_rows(band)];
            forestall_parity::pq_update(column, &old, new, p.as_deref_mut(), q.as_deref_mut());
        }
        [p.unwrap_or_default(), q.unwrap_or_default()]
    }

    fn put(&mut self, slot: Slot, row: usize, blocks: &[u8]) {
        for (row, block) in (row..).zip(blocks) {
            assert!(self.views[row].writable.contains(slot), "slot {slot} is not writable");
            self.disk[index(slot)][row] = *block;
        }
    }
}

fn index(slot: Slot) -> usize {
    usize::from(slot.0)
}

fn block_rows(band: &Band) -> Range<usize> {
    let block = BLOCK_SIZE as u32;
    assert!(band.rows.start.is_multiple_of(block) && band.rows.end.is_multiple_of(block));
    (band.rows.start / block) as usize..(band.rows.end / block) as usize
}

/// The slots as the parity code orders them: data columns, P, Q.
fn code_order(geometry: &Geometry, stripe: Stripe) -> Vec<Slot> {
    let data =
        (0..geometry.data_columns()).flat_map(|column| geometry.copies(stripe, column).iter());
    data.chain(geometry.p_slot(stripe)).chain(geometry.q_slot(stripe)).collect()
}

fn parity(parities: usize, data: &[Vec<u8>]) -> [Vec<u8>; 2] {
    let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
    let (mut p, mut q) = (vec![0; data[0].len()], vec![0; data[0].len()]);
    match parities {
        1 => forestall_parity::xor_gen(&data, &mut p),
        _ => forestall_parity::pq_gen(&data, &mut p, &mut q),
    }
    [p, q]
}

/// What every slot should hold.
fn encode(geometry: &Geometry, stripe: Stripe, data: &[Vec<u8>]) -> Blocks {
    let [p, q] = match geometry.parity_columns() {
        0 => [Vec::new(), Vec::new()],
        parities => parity(parities, data),
    };
    let slots = SlotSet::first(geometry.members());
    slots
        .iter()
        .map(|slot| match geometry.role(stripe, slot) {
            Role::Data(column) => data[column].clone(),
            Role::P => p.clone(),
            Role::Q => q.clone(),
        })
        .collect()
}
