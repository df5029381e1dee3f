//! Exchanges of temperatures (Sugita and Okamoto, Chem. Phys. Lett. 314, 141 (1999)), and the way of replicas through
//! the ladder.

use super::noise::Source;
use crate::compute::fused::{Portable, ln};
use crate::math::Purpose;

/// Which replica has which temperature, in several ladders side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct Ladders {
    temperatures: usize,
    /// The rung of each row.
    pub rungs: Vec<u32>,
    /// The row at each rung, ladder by ladder.
    pub rows: Vec<u32>,
    /// The end of the ladder that each row was at last.
    pub last_end: Vec<u8>,
    /// Times that each row came back to the lowest temperature from the highest.
    pub round_trips: Vec<u32>,
    /// Of each pair of neighbouring temperatures.
    pub attempts: Vec<u64>,
    pub accepted: Vec<u64>,
}

pub const NO_END: u8 = 0;
const BOTTOM: u8 = 1;
const TOP: u8 = 2;

impl Ladders {
    pub fn new(temperatures: usize, walkers: usize) -> Self {
        let rows = temperatures.saturating_mul(walkers);
        let pairs = temperatures.saturating_sub(1);
        let mut new = Self {
            temperatures,
            rungs: (0..rows).map(|row| (row % temperatures.max(1)) as u32).collect(),
            rows: (0..rows as u32).collect(),
            last_end: vec![NO_END; rows],
            round_trips: vec![0; rows],
            attempts: vec![0; pairs],
            accepted: vec![0; pairs],
        };
        new.mark_ends();
        new
    }

    /// Whether stored numbers can be ladders of this size: a permutation of rows in each.
    pub fn is_consistent(&self, rows: usize) -> bool {
        let lengths = [self.rungs.len(), self.rows.len(), self.last_end.len(), self.round_trips.len()];
        let pairs = self.temperatures.saturating_sub(1);
        lengths.iter().all(|&n| n == rows)
            && self.attempts.len() == pairs
            && self.accepted.len() == pairs
            && self.last_end.iter().all(|&end| end <= TOP)
            && self.rows.iter().enumerate().all(|(slot, &row)| {
                let same_ladder = row as usize / self.temperatures.max(1) == slot / self.temperatures.max(1);
                same_ladder
                    && self.rungs.get(row as usize).is_some_and(|&k| k as usize == slot % self.temperatures.max(1))
            })
    }

    /// One round: every other pair of neighbours, in turn the even and the odd ones. `exchanged` hears of each row that
    /// changes its temperature, with its old rung and the new one.
    pub fn round(
        &mut self,
        source: &Source,
        step: u64,
        round: u64,
        kt: &[f64],
        energies: &[f64],
        mut exchanged: impl FnMut(usize, usize, usize),
    ) {
        let k = self.temperatures;
        for ladder in 0..self.rows.len() / k.max(1) {
            for low in ((round % 2) as usize..k.saturating_sub(1)).step_by(2) {
                let slot = ladder * k + low;
                let (a, b) = (self.rows[slot] as usize, self.rows[slot + 1] as usize);
                let exponent = (1.0 / kt[low] - 1.0 / kt[low + 1]) * (energies[a] - energies[b]);
                self.attempts[low] = self.attempts[low].saturating_add(1);
                if ln::<Portable>(source.uniform(Purpose::SimulationExchange, step, slot)) < exponent {
                    self.accepted[low] = self.accepted[low].saturating_add(1);
                    self.rows.swap(slot, slot + 1);
                    self.rungs.swap(a, b);
                    exchanged(a, low, low + 1);
                    exchanged(b, low + 1, low);
                }
            }
        }
        self.mark_ends();
    }

    fn mark_ends(&mut self) {
        let k = self.temperatures;
        if k < 2 {
            return;
        }
        for ladder in self.rows.chunks_exact(k) {
            let (bottom, top) = (ladder[0] as usize, ladder[k - 1] as usize);
            if self.last_end[bottom] == TOP {
                self.round_trips[bottom] = self.round_trips[bottom].saturating_add(1);
            }
            self.last_end[bottom] = BOTTOM;
            // A replica that starts at the top has not come from the bottom.
            if self.last_end[top] == BOTTOM {
                self.last_end[top] = TOP;
            }
        }
    }

    /// Forgets what was counted, but not which replica is where.
    pub fn forget(&mut self) {
        self.attempts.fill(0);
        self.accepted.fill(0);
        self.round_trips.fill(0);
        self.last_end.fill(NO_END);
        self.mark_ends();
    }
}
