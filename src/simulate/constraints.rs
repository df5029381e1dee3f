//! Distances held fixed: SHAKE for positions (Ryckaert, Ciccotti and Berendsen, J. Comput. Phys. 23, 327 (1977)) and
//! RATTLE for velocities (Andersen, J. Comput. Phys. 52, 24 (1983)), of eight configurations side by side.

use super::error::SimulationError;
use crate::compute::fused::{InstructionSet, Kernel, dispatch};
use crate::energy::openmm::Constraint;
use std::collections::BTreeSet;

/// Configurations side by side.
const WIDTH: usize = 8;
type Lanes = [f64; WIDTH];
type Vector = [Lanes; 3];

const ZERO: Vector = [[0.0; WIDTH]; 3];

/// Relative error of a squared distance at which sweeps end. Later constraints of a sweep move earlier ones by less.
const TOLERANCE: f64 = 1e-10;
/// Velocity along a constraint at which sweeps end, over its thermal one at the lowest temperature.
const VELOCITY_TOLERANCE: f64 = 1e-9;
/// Sweeps over all constraints. Bonds to hydrogen take about six, whole molecules of fixed bonds some tens.
const MAX_SWEEPS: usize = 500;

#[derive(Debug)]
struct Bond {
    /// Places in `ConstraintSet::atoms`.
    i: usize,
    j: usize,
    squared: f64,
    inverse_mass: [f64; 2],
    /// Of the product of distance and velocity, in nm²/ps.
    velocity_tolerance: f64,
}

/// The constraints of a molecule, over the atoms that have any.
#[derive(Debug)]
pub struct ConstraintSet {
    bonds: Vec<Bond>,
    atoms: Vec<usize>,
}

/// Intermediate results of a thread.
#[derive(Debug)]
pub struct ConstraintScratch {
    x: Vec<Vector>,
    start: Vec<Vector>,
    /// Of each constraint.
    direction: Vec<Vector>,
}

impl ConstraintSet {
    pub fn new(list: &[Constraint], masses: &[f64], lowest_kt: f64) -> Result<Self, SimulationError> {
        let mut seen = BTreeSet::new();
        for (index, c) in list.iter().enumerate() {
            let fail = |reason: String| Err(SimulationError::Constraint { index, reason });
            if c.i >= masses.len() || c.j >= masses.len() {
                return fail(format!(
                    "atoms {} and {} are not both among the {} of the system",
                    c.i,
                    c.j,
                    masses.len()
                ));
            }
            if c.i == c.j {
                return fail(format!("atom {} has no distance from itself", c.i));
            }
            if !(1e-6..=1e6).contains(&c.distance) {
                return fail(format!("the distance is {} nm; it must be from 1e-6 to 1e6", c.distance));
            }
            if !seen.insert((c.i.min(c.j), c.i.max(c.j))) {
                return fail(format!("atoms {} and {} are constrained twice; keep one of the two", c.i, c.j));
            }
        }
        let atoms: BTreeSet<usize> = list.iter().flat_map(|c| [c.i, c.j]).collect();
        let atoms: Vec<usize> = atoms.into_iter().collect();
        let place = |atom: usize| atoms.binary_search(&atom).unwrap_or_default();
        let bonds = list.iter().map(|c| {
            let inverse_mass = [1.0 / masses[c.i], 1.0 / masses[c.j]];
            let speed = (lowest_kt * (inverse_mass[0] + inverse_mass[1])).sqrt();
            Bond {
                i: place(c.i),
                j: place(c.j),
                squared: c.distance * c.distance,
                inverse_mass,
                velocity_tolerance: VELOCITY_TOLERANCE * speed * c.distance,
            }
        });
        Ok(Self { bonds: bonds.collect(), atoms })
    }

    pub fn scratch(&self) -> ConstraintScratch {
        ConstraintScratch {
            x: vec![ZERO; self.atoms.len()],
            start: vec![ZERO; self.atoms.len()],
            direction: vec![ZERO; self.bonds.len()],
        }
    }

    /// Moves `new` back onto the constraints along their directions at `old`, and adds to the velocities what that is
    /// over a time; false for rows where this did not succeed.
    pub fn restore(
        &self,
        scratch: &mut ConstraintScratch,
        d: usize,
        old: &[f64],
        new: &mut [f64],
        velocities: Option<(&mut [f64], &[f64])>,
        held: &mut [bool],
    ) {
        let (mut v, times) = match velocities {
            Some((v, times)) => (v.chunks_mut(WIDTH * d), times),
            None => (<&mut [f64]>::default().chunks_mut(WIDTH * d), <&[f64]>::default()),
        };
        let mut times = times.chunks(WIDTH);
        for ((old, new), held) in old.chunks(WIDTH * d).zip(new.chunks_mut(WIDTH * d)).zip(held.chunks_mut(WIDTH)) {
            let velocities = v.next().zip(times.next());
            dispatch(Restore { set: self, scratch, d, old, new, velocities, held });
        }
    }

    /// Takes from the velocities of rows at `x` what would change a constrained distance; false for rows where this did
    /// not succeed.
    pub fn project(&self, scratch: &mut ConstraintScratch, d: usize, x: &[f64], v: &mut [f64], held: &mut [bool]) {
        for ((x, v), held) in x.chunks(WIDTH * d).zip(v.chunks_mut(WIDTH * d)).zip(held.chunks_mut(WIDTH)) {
            dispatch(Project { set: self, scratch, d, x, v, held });
        }
    }

    /// Lanes without a row repeat the last one.
    #[inline(always)]
    fn load(&self, rows: &[f64], d: usize, to: &mut [Vector]) {
        let last = (rows.len() / d).saturating_sub(1);
        for lane in 0..WIDTH {
            let row = &rows[lane.min(last) * d..][..d];
            for (to, &atom) in to.iter_mut().zip(&self.atoms) {
                let at = &row[3 * atom..][..3];
                for axis in 0..3 {
                    to[axis][lane] = at[axis];
                }
            }
        }
    }

    #[inline(always)]
    fn store(&self, from: &[Vector], d: usize, rows: &mut [f64], mut write: impl FnMut(&mut f64, usize, usize, f64)) {
        for (lane, row) in rows.chunks_exact_mut(d).enumerate().take(WIDTH) {
            for (place, (from, &atom)) in from.iter().zip(&self.atoms).enumerate() {
                let to = &mut row[3 * atom..][..3];
                for axis in 0..3 {
                    write(&mut to[axis], lane, 3 * place + axis, from[axis][lane]);
                }
            }
        }
    }

    #[inline(always)]
    fn directions(&self, x: &[Vector], to: &mut [Vector]) {
        for (to, bond) in to.iter_mut().zip(&self.bonds) {
            *to = difference(&x[bond.i], &x[bond.j]);
        }
    }
}

struct Restore<'a> {
    set: &'a ConstraintSet,
    scratch: &'a mut ConstraintScratch,
    d: usize,
    old: &'a [f64],
    new: &'a mut [f64],
    velocities: Option<(&'a mut [f64], &'a [f64])>,
    held: &'a mut [bool],
}

impl Kernel for Restore<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: InstructionSet>(self) {
        let Self { set, scratch, d, old, new, velocities, held } = self;
        let ConstraintScratch { x, start, direction } = scratch;
        set.load(old, d, x);
        set.directions(x, direction);
        set.load(new, d, x);
        start.copy_from_slice(x);
        let mut worst = [f64::INFINITY; WIDTH];
        for _ in 0..MAX_SWEEPS {
            worst = [0.0; WIDTH];
            for (bond, along) in set.bonds.iter().zip(&*direction) {
                let now = difference(&x[bond.i], &x[bond.j]);
                let (length, overlap) = (dot(&now, &now), dot(&now, along));
                let [a, b] = bond.inverse_mass;
                let mut factor = [0.0; WIDTH];
                for l in 0..WIDTH {
                    let excess = length[l] - bond.squared;
                    worst[l] = larger(worst[l], excess.abs() / bond.squared);
                    factor[l] = excess / (2.0 * (a + b) * overlap[l]);
                }
                shift(&mut x[bond.i], along, &factor, -a);
                shift(&mut x[bond.j], along, &factor, b);
            }
            // A configuration that is not finite never gets better.
            if worst.iter().all(|w| !w.is_finite() || *w <= TOLERANCE) {
                break;
            }
        }
        set.store(x, d, new, |to, _, _, x| *to = x);
        if let Some((v, times)) = velocities {
            set.store(x, d, v, |v, lane, place, x| *v += (x - start[place / 3][place % 3][lane]) / times[lane]);
        }
        held.iter_mut().zip(worst).for_each(|(held, worst)| *held &= worst <= TOLERANCE);
    }
}

struct Project<'a> {
    set: &'a ConstraintSet,
    scratch: &'a mut ConstraintScratch,
    d: usize,
    x: &'a [f64],
    v: &'a mut [f64],
    held: &'a mut [bool],
}

impl Kernel for Project<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: InstructionSet>(self) {
        let Self { set, scratch, d, x: at, v, held } = self;
        let ConstraintScratch { x, start: speed, direction } = scratch;
        set.load(at, d, x);
        set.directions(x, direction);
        set.load(v, d, speed);
        let mut worst = [f64::INFINITY; WIDTH];
        for _ in 0..MAX_SWEEPS {
            worst = [0.0; WIDTH];
            for (bond, along) in set.bonds.iter().zip(&*direction) {
                let relative = difference(&speed[bond.i], &speed[bond.j]);
                let (rate, length) = (dot(&relative, along), dot(along, along));
                let [a, b] = bond.inverse_mass;
                let mut factor = [0.0; WIDTH];
                for l in 0..WIDTH {
                    worst[l] = larger(worst[l], rate[l].abs() / bond.velocity_tolerance);
                    factor[l] = rate[l] / ((a + b) * length[l]);
                }
                shift(&mut speed[bond.i], along, &factor, -a);
                shift(&mut speed[bond.j], along, &factor, b);
            }
            if worst.iter().all(|w| !w.is_finite() || *w <= 1.0) {
                break;
            }
        }
        set.store(speed, d, v, |to, _, _, v| *to = v);
        held.iter_mut().zip(worst).for_each(|(held, worst)| *held &= worst <= 1.0);
    }
}

/// The larger error; one that is not a number counts as infinite.
#[inline(always)]
fn larger(worst: f64, error: f64) -> f64 {
    let error = if error < f64::MAX { error } else { f64::INFINITY };
    if worst > error { worst } else { error }
}

#[inline(always)]
fn difference(a: &Vector, b: &Vector) -> Vector {
    let mut out = ZERO;
    for axis in 0..3 {
        for l in 0..WIDTH {
            out[axis][l] = a[axis][l] - b[axis][l];
        }
    }
    out
}

#[inline(always)]
fn dot(a: &Vector, b: &Vector) -> Lanes {
    let mut out = [0.0; WIDTH];
    for l in 0..WIDTH {
        out[l] = a[0][l] * b[0][l] + a[1][l] * b[1][l] + a[2][l] * b[2][l];
    }
    out
}

/// `to += weight·factor·along`.
#[inline(always)]
fn shift(to: &mut Vector, along: &Vector, factor: &Lanes, weight: f64) {
    for axis in 0..3 {
        for l in 0..WIDTH {
            to[axis][l] += weight * factor[l] * along[axis][l];
        }
    }
}
