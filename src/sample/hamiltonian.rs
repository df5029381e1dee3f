//! Hamiltonian Monte Carlo (Duane et al. 1987; Neal 2011) in flow coordinates, many rows at once.
//!
//! A move draws momenta v ~ N(0, 1), goes some leapfrog steps of H(y, v) = −log γ(y) + v²/2 and is accepted with the
//! probability min(1, e^{H − H'}), which leaves γ invariant whatever the step size. Circular coordinates go round. A
//! trajectory that meets a point where a density or a slope is not finite is rejected, as it would be on its way back.

use super::annealing::PathError;
use super::moves::{Moves, Outcome};
use super::points::{Points, append, put};
use crate::flow::CoordinateKind;
use crate::math::Randoms;
use crate::math::special::wrap_angle;

/// The moves under way, and the rows that can be moved. The others stay where they are.
struct Round<'a> {
    moves: &'a Moves<'a>,
    live: Vec<usize>,
}

/// Trajectories under way, row by row of those that have not been given up.
struct Trajectories {
    rows: Vec<usize>,
    /// Momenta (rows, d).
    momenta: Vec<f64>,
    points: Points,
}

impl Moves<'_> {
    /// The moves by gradients at γ_β of all rows. `proceed` is asked before each leapfrog step.
    pub(super) fn move_by_gradients<E: From<PathError>>(
        &self,
        points: &mut Points,
        beta: f64,
        step_size: f64,
        randoms: &mut [Randoms],
        proceed: &mut impl FnMut() -> Result<(), E>,
        outcome: &mut Outcome,
    ) -> Result<(), E> {
        let d = self.densities.target.dimension();
        let live = (0..points.len()).filter(|&row| points.is_sound(row, d)).collect();
        let round = Round { moves: self, live };
        for _ in 0..self.effort.moves {
            round.one(points, beta, step_size, randoms, proceed, outcome)?;
        }
        Ok(())
    }
}

impl Round<'_> {
    fn one<E: From<PathError>>(
        &self,
        points: &mut Points,
        beta: f64,
        step_size: f64,
        randoms: &mut [Randoms],
        proceed: &mut impl FnMut() -> Result<(), E>,
        outcome: &mut Outcome,
    ) -> Result<(), E> {
        let d = self.moves.densities.target.dimension();
        let mut momenta = Vec::with_capacity(self.live.len() * d);
        let mut before = Vec::with_capacity(self.live.len());
        let mut thresholds = Vec::with_capacity(self.live.len());
        for &row in &self.live {
            let random = &mut randoms[row];
            let from = momenta.len();
            momenta.extend((0..d).map(|_| random.normal()));
            before.push(energy(points, row, beta, &momenta[from..]));
            thresholds.push(libm::log(random.uniform()));
        }
        let places: Vec<usize> = (0..self.live.len()).collect();
        let mut under_way = Trajectories { rows: places, momenta, points: points.rows(&self.live) };
        for _ in 0..self.moves.effort.leapfrog_steps {
            proceed()?;
            outcome.evaluations += self.leap(&mut under_way, beta, step_size)?;
        }
        outcome.count += self.live.len() as u64;
        for (i, &place) in under_way.rows.iter().enumerate() {
            let after = energy(&under_way.points, i, beta, &under_way.momenta[i * d..(i + 1) * d]);
            let log_ratio = before[place] - after;
            if log_ratio.is_nan() {
                continue;
            }
            outcome.sum += libm::exp(log_ratio.min(0.0));
            if thresholds[place] < log_ratio {
                put(&under_way.points, i, points, self.live[place]);
            }
        }
        Ok(())
    }

    /// A leapfrog step of all trajectories; how many configurations were evaluated. Those that are not sound any more are
    /// given up.
    fn leap(&self, under_way: &mut Trajectories, beta: f64, step_size: f64) -> Result<u64, PathError> {
        let kinds = self.moves.densities.target.coordinates().kinds();
        let d = kinds.len();
        let size = |place: usize| step_size * self.moves.taus[self.live[place]].sqrt();
        let Trajectories { rows, momenta, points } = under_way;
        let mut moved = Trajectories { rows: Vec::new(), momenta: Vec::new(), points: Points::default() };
        let mut coordinates = Vec::with_capacity(points.coordinates.len());
        for (i, &place) in rows.iter().enumerate() {
            let size = size(place);
            let from = coordinates.len();
            for (j, kind) in kinds.iter().enumerate() {
                let at = i * d + j;
                momenta[at] += 0.5 * size * points.slope(at, beta);
                let y = points.coordinates[at] + size * momenta[at];
                coordinates.push(if *kind == CoordinateKind::Circular { wrap_angle(y) } else { y });
            }
            if coordinates[from..].iter().all(|y| y.is_finite()) {
                moved.rows.push(place);
                moved.momenta.extend_from_slice(&momenta[i * d..(i + 1) * d]);
            } else {
                coordinates.truncate(from);
            }
        }
        let of = |all: &[f64]| moved.rows.iter().map(|&place| all[self.live[place]]).collect::<Vec<f64>>();
        let evaluated = moved.rows.len() as u64;
        moved.points = self.moves.densities.points(coordinates, &of(self.moves.temperatures), &of(self.moves.taus))?;
        for (i, &place) in moved.rows.iter().enumerate() {
            let size = size(place);
            for at in i * d..(i + 1) * d {
                moved.momenta[at] += 0.5 * size * moved.points.slope(at, beta);
            }
        }
        *under_way = sound(moved, d);
        Ok(evaluated)
    }
}

/// H of a row.
fn energy(points: &Points, row: usize, beta: f64, momenta: &[f64]) -> f64 {
    0.5 * momenta.iter().map(|v| v * v).sum::<f64>() - points.log_density(row, beta)
}

/// The trajectories at sound points.
fn sound(all: Trajectories, d: usize) -> Trajectories {
    let keeps: Vec<bool> = (0..all.rows.len()).map(|i| all.points.is_sound(i, d)).collect();
    if keeps.iter().all(|keeps| *keeps) {
        return all;
    }
    let mut left = Trajectories { rows: Vec::new(), momenta: Vec::new(), points: Points::default() };
    for i in (0..keeps.len()).filter(|&i| keeps[i]) {
        left.rows.push(all.rows[i]);
        left.momenta.extend_from_slice(&all.momenta[i * d..(i + 1) * d]);
        append(&all.points, i, &mut left.points);
    }
    left
}
