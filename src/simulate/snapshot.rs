//! The state of a simulation as bytes: arrays behind their lengths, and a digest of it all at the end.

use super::cell::Tally;
use super::ensemble::State;
use super::error::SnapshotError;
use super::exchange::Ladders;
use super::statistics::EnergySeries;
use sha2::{Digest, Sha256};

const MAGIC: &[u8] = b"bflowsim";
const VERSION: u64 = 1;
const DIGEST: usize = 32;

pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub fn new() -> Self {
        let mut new = Self { bytes: MAGIC.to_vec() };
        new.number(VERSION);
        new
    }

    pub fn number(&mut self, value: u64) {
        self.bytes.extend(value.to_le_bytes());
    }

    pub fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u64);
        self.bytes.extend(text);
    }

    pub fn numbers(&mut self, list: impl ExactSizeIterator<Item = u64>) {
        self.number(list.len() as u64);
        list.for_each(|x| self.number(x));
    }

    pub fn reals(&mut self, list: &[f64]) {
        self.number(list.len() as u64);
        self.bytes.reserve(8 * list.len());
        list.iter().for_each(|x| self.bytes.extend(x.to_le_bytes()));
    }

    fn tallies(&mut self, list: &[Tally]) {
        self.reals(&list.iter().flat_map(Tally::numbers).collect::<Vec<_>>());
    }

    pub fn state(&mut self, state: &State) {
        self.number(state.step);
        for list in [&state.positions, &state.velocities, &state.gradients] {
            self.reals(list);
        }
        for list in [&state.energies, &state.heat, &state.conserved, &state.move_sizes] {
            self.reals(list);
        }
        self.tallies(&state.tallies);
        self.tallies(&state.counted);
        let ladders = &state.ladders;
        for list in [&ladders.rungs, &ladders.rows, &ladders.round_trips] {
            self.numbers(list.iter().map(|&x| u64::from(x)));
        }
        self.text(&ladders.last_end);
        self.numbers(ladders.attempts.iter().copied());
        self.numbers(ladders.accepted.iter().copied());
        let series = &state.series;
        self.numbers([series.block, series.pending, series.frames].into_iter());
        for list in [&series.partial, &series.means, &series.origin, &series.sums, &series.squares] {
            self.reals(list);
        }
    }

    pub fn finish(mut self) -> Vec<u8> {
        let digest = Sha256::digest(&self.bytes);
        self.bytes.extend(digest);
        self.bytes
    }
}

pub struct Reader<'a> {
    rest: &'a [u8],
}

const SHORT: SnapshotError = SnapshotError::Damaged("it ends too early");

impl<'a> Reader<'a> {
    /// Checks the digest before anything else is read.
    pub fn new(bytes: &'a [u8]) -> Result<Self, SnapshotError> {
        let body = bytes.len().checked_sub(DIGEST).and_then(|n| bytes.split_at_checked(n));
        let (body, digest) = body.ok_or(SHORT)?;
        if Sha256::digest(body)[..] != *digest {
            return Err(SnapshotError::Damaged("its digest is not that of its content"));
        }
        let rest = body.strip_prefix(MAGIC).ok_or(SnapshotError::Damaged("it is not a snapshot of a simulation"))?;
        let mut new = Self { rest };
        if new.number()? != VERSION {
            return Err(SnapshotError::Mismatch("version of this program"));
        }
        Ok(new)
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], SnapshotError> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or(SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    pub fn number(&mut self) -> Result<u64, SnapshotError> {
        let bytes = self.take(8)?.first_chunk::<8>().ok_or(SHORT)?;
        Ok(u64::from_le_bytes(*bytes))
    }

    fn length(&mut self) -> Result<usize, SnapshotError> {
        usize::try_from(self.number()?).map_err(|_| SHORT)
    }

    pub fn text(&mut self) -> Result<&'a [u8], SnapshotError> {
        let n = self.length()?;
        self.take(n)
    }

    fn words(&mut self) -> Result<impl Iterator<Item = [u8; 8]> + use<'a>, SnapshotError> {
        let n = self.length()?;
        Ok(self.take(n.checked_mul(8).ok_or(SHORT)?)?.as_chunks::<8>().0.iter().copied())
    }

    fn numbers(&mut self) -> Result<Vec<u64>, SnapshotError> {
        Ok(self.words()?.map(u64::from_le_bytes).collect())
    }

    fn small_numbers(&mut self) -> Result<Vec<u32>, SnapshotError> {
        let list: Result<_, _> = self.words()?.map(|word| u32::try_from(u64::from_le_bytes(word))).collect();
        list.map_err(|_| SnapshotError::Damaged("an index is too large"))
    }

    pub fn reals(&mut self) -> Result<Vec<f64>, SnapshotError> {
        Ok(self.words()?.map(f64::from_le_bytes).collect())
    }

    fn tallies(&mut self) -> Result<Vec<Tally>, SnapshotError> {
        let numbers = self.reals()?;
        Ok(numbers.as_chunks().0.iter().map(|&n| Tally::from_numbers(n)).collect())
    }

    /// A state of so many walkers at so many temperatures.
    pub fn state(&mut self, dimension: usize, temperatures: usize, walkers: usize) -> Result<State, SnapshotError> {
        let rows = temperatures.saturating_mul(walkers);
        let step = self.number()?;
        let [positions, velocities, gradients] = [self.reals()?, self.reals()?, self.reals()?];
        let [energies, heat, conserved, move_sizes] = [self.reals()?, self.reals()?, self.reals()?, self.reals()?];
        let [tallies, counted] = [self.tallies()?, self.tallies()?];
        let mut ladders = Ladders::new(temperatures, walkers);
        ladders.rungs = self.small_numbers()?;
        ladders.rows = self.small_numbers()?;
        ladders.round_trips = self.small_numbers()?;
        ladders.last_end = self.text()?.to_vec();
        ladders.attempts = self.numbers()?;
        ladders.accepted = self.numbers()?;
        let counts = self.numbers()?;
        let mut series = EnergySeries::new(rows);
        let &[block, pending, frames] = counts.as_slice() else { return Err(SHORT) };
        (series.block, series.pending, series.frames) = (block, pending, frames);
        series.partial = self.reals()?;
        series.means = self.reals()?;
        series.origin = self.reals()?;
        series.sums = self.reals()?;
        series.squares = self.reals()?;
        let numbers = rows.saturating_mul(dimension);
        let fits = [&positions, &velocities, &gradients].iter().all(|list| list.len() == numbers)
            && [&energies, &heat, &conserved].iter().all(|list| list.len() == rows)
            && tallies.len() == rows
            && counted.len() == temperatures
            && (move_sizes.is_empty() || move_sizes.len() == temperatures)
            && ladders.is_consistent(rows)
            && series.is_consistent();
        if !fits {
            return Err(SnapshotError::Damaged("its arrays do not fit each other"));
        }
        Ok(State {
            step,
            positions,
            velocities,
            gradients,
            energies,
            heat,
            conserved,
            tallies,
            counted,
            move_sizes,
            ladders,
            series,
        })
    }

    pub fn end(self) -> Result<(), SnapshotError> {
        if self.rest.is_empty() { Ok(()) } else { Err(SnapshotError::Damaged("it has more than it should")) }
    }
}
