//! The atoms of a core in whitened Cartesian coordinates, without its six rigid motions.
//!
//! This is the Cartesian part of the mixed coordinates of Noé et al., Science 365, eaaw1147 (2019). There the rigid motions
//! are taken out by superposing on a reference, and their volume element is taken to be constant. It is not, quite; here it
//! is exact, so that the density is that of internal coordinates.

use super::geometry::{Vector, add_scaled, cross, dot, norm, scaled, sub};
use super::placement::{place, point};
use super::transform::CoordinatesError;
use crate::math::{principal_axes, superposition};
use nalgebra::Matrix3;

/// The most atoms that a core may have: its directions are (3n)² numbers.
const MAX_ATOMS: usize = 256;

/// The least variance (nm²) of a direction in which the data are said to move.
const LEAST_VARIANCE: f64 = 1e-12;

/// A centre has a hand if the triple product of the unit vectors to three of its neighbours is this on average.
const UPRIGHT: f64 = 0.3;

/// How far directions may be from orthonormal in a stored core.
const ORTHONORMAL: f64 = 1e-8;

/// Rounds of superposing all frames on their mean, and the change (nm) of the mean that ends them.
const ROUNDS: usize = 50;
const SETTLED: f64 = 1e-10;

/// A centre of the core whose three neighbours in it keep the sign of their triple product.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Hand {
    centre: usize,
    neighbours: [usize; 3],
    positive: bool,
}

impl Hand {
    /// The triple product of the unit vectors to the neighbours.
    fn product(centre: usize, neighbours: [usize; 3], x: &[f64]) -> f64 {
        let [a, b, c] = neighbours.map(|atom| {
            let v = sub(point(x, atom), point(x, centre));
            scaled(v, 1.0 / norm(v))
        });
        dot(a, cross(b, c))
    }

    fn is_kept(&self, x: &[f64]) -> bool {
        let product = Self::product(self.centre, self.neighbours, x);
        if self.positive { product > 0.0 } else { product < 0.0 }
    }
}

/// X = c + Σ_j s_j y_j u_j for the n atoms of the core: c their mean structure, about its centre; u_j the 3n − 6 principal
/// axes of their motion, orthonormal, and orthogonal to the rigid motions of c; s_j the spread along them.
///
/// So X is where its superposition on c leaves it (Eckart, Phys. Rev. 47, 552 (1935)), provided that M, below, is positive
/// definite; elsewhere there is no density, since the superposition of X is another point. The volume element of X(y) and
/// the rigid motions is
///
/// dX = n^{3/2} Π s_j · det M(X) / √det M(c) · dy dt dω,   M(X) = Σ_i (c_i·X_i) 1 − X_i c_iᵀ,
///
/// with translations t and rotations ω (Haar), which are integrated out as they are from internal coordinates.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct WhitenedCore {
    atoms: Vec<usize>,
    /// c (3n), in nm.
    centre: Vec<f64>,
    /// u_j, one after the other (3n − 6 of 3n each).
    directions: Vec<f64>,
    /// s_j (3n − 6), in nm.
    scales: Vec<f64>,
    hands: Vec<Hand>,
    #[serde(skip)]
    log_scale: f64,
}

impl WhitenedCore {
    /// Of the atoms of the core in the frames of `data` (rows of `dimension` numbers, nm). `neighbours` are the bonds of all
    /// atoms of the molecule.
    pub(super) fn of_data(
        atoms: Vec<usize>,
        data: &[f64],
        dimension: usize,
        neighbours: &[Vec<usize>],
    ) -> Result<Self, CoordinatesError> {
        let unsuitable = |reason: String| CoordinatesError::Unsuitable(reason);
        let n = atoms.len();
        let (d, frames) = (Self::dimension_of(&atoms)?, data.len() / dimension);
        if frames <= d {
            return Err(unsuitable(format!(
                "the spread of a core of {n} atoms in {d} directions needs more than {d} frames; the dataset has {frames}"
            )));
        }
        let mut superposed: Vec<Vec<f64>> = data.chunks_exact(dimension).map(|x| about_centre(&atoms, x)).collect();
        let mut centre = superposed.first().cloned().unwrap_or_default();
        for _ in 0..ROUNDS {
            superposed.iter_mut().for_each(|x| superpose(x, &centre));
            let mut next = vec![0.0; 3 * n];
            for x in &superposed {
                next.iter_mut().zip(x).for_each(|(mean, x)| *mean += x / frames as f64);
            }
            let change = next.iter().zip(&centre).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            centre = next;
            if change < SETTLED {
                break;
            }
        }
        superposed.iter_mut().for_each(|x| superpose(x, &centre));
        let rigid = rigid_motions(&centre).ok_or_else(|| {
            unsuitable("the core's atoms are on a line: its turns about that line are no motion".into())
        })?;
        superposed.iter_mut().for_each(|x| x.iter_mut().zip(&centre).for_each(|(x, c)| *x -= c));
        let axes = principal_axes(&superposed, &rigid);
        if axes.len() != d {
            return Err(unsuitable("the dataset's positions of the core are too large to have a spread".into()));
        }
        let still = axes.iter().filter(|(variance, _)| *variance < LEAST_VARIANCE).count();
        if still > 0 {
            return Err(unsuitable(format!("in {still} of the core's {d} directions the dataset never moves")));
        }
        let scales = axes.iter().map(|(variance, _)| variance.sqrt()).collect();
        let directions = axes.into_iter().flat_map(|(_, direction)| direction).collect();
        let hands = hands(&atoms, data, dimension, neighbours);
        Self { atoms, centre, directions, scales, hands, log_scale: 0.0 }.checked()
    }

    /// The number of coordinates of a core.
    pub(super) fn dimension_of(atoms: &[usize]) -> Result<usize, CoordinatesError> {
        match atoms.len() {
            n @ 3..=MAX_ATOMS => Ok(3 * n - 6),
            n => Err(CoordinatesError::Unsuitable(format!(
                "the core of mixed coordinates has {n} atoms; it must have from 3 to {MAX_ATOMS}: name them in core_atoms"
            ))),
        }
    }

    pub(super) fn checked(mut self) -> Result<Self, CoordinatesError> {
        let n = self.atoms.len();
        let middle = [0, 1, 2].map(|axis| self.centre.iter().skip(axis).step_by(3).sum::<f64>());
        let (d, finite) = ((3 * n).saturating_sub(6), |all: &[f64]| all.iter().all(|x| x.is_finite()));
        let fits = (3..=MAX_ATOMS).contains(&n)
            && self.centre.len() == 3 * n
            && self.scales.len() == d
            && self.directions.len() == d * 3 * n
            && finite(&self.centre)
            && middle.iter().all(|sum| sum.abs() < ORTHONORMAL)
            && finite(&self.directions)
            && finite(&self.scales)
            && self.scales.iter().all(|s| *s > 0.0)
            && self.hands.iter().all(|h| {
                let all = [h.centre, h.neighbours[0], h.neighbours[1], h.neighbours[2]];
                all.iter().all(|atom| self.atoms.contains(atom)) && h.neighbours.iter().all(|atom| *atom != h.centre)
            });
        let rigid = if fits { rigid_motions(&self.centre) } else { None };
        let sound = rigid.is_some_and(|rigid| {
            let all: Vec<&[f64]> = self.directions.chunks_exact(3 * n).chain(rigid.iter().map(Vec::as_slice)).collect();
            all.iter().enumerate().all(|(i, a)| {
                all[i..].iter().enumerate().all(|(k, b)| {
                    let product: f64 = a.iter().zip(*b).map(|(a, b)| a * b).sum();
                    (product - f64::from(u8::from(k == 0))).abs() < ORTHONORMAL
                })
            })
        });
        let turns = self.turns(|i| self.at(i)).determinant();
        if !(sound && turns > 0.0) {
            return Err(CoordinatesError::Stored("the core's directions do not fit its structure".into()));
        }
        self.log_scale = self.scales.iter().map(|s| s.ln()).sum::<f64>() + 1.5 * (n as f64).ln() - 0.5 * turns.ln();
        Ok(self)
    }

    pub(super) fn atoms(&self) -> &[usize] {
        &self.atoms
    }

    /// The number of the flow's coordinates that it has.
    pub(super) fn dimension(&self) -> usize {
        self.scales.len()
    }

    /// The number of centres that keep their hand.
    pub(super) fn hands(&self) -> usize {
        self.hands.len()
    }

    /// c_i.
    fn at(&self, i: usize) -> Vector {
        point(&self.centre, i)
    }

    /// M of positions of the core's atoms.
    fn turns(&self, position: impl Fn(usize) -> Vector) -> Matrix3<f64> {
        let mut m = Matrix3::<f64>::zeros();
        for i in 0..self.centre.len() / 3 {
            let (c, x) = (self.at(i), position(i));
            let product = dot(c, x);
            for a in 0..3 {
                m[(a, a)] += product;
                for b in 0..3 {
                    m[(a, b)] -= x[a] * c[b];
                }
            }
        }
        m
    }

    /// log of the volume element at positions that are superposed; −∞ where there is no density.
    fn ladj(&self, x: &[f64], position: impl Fn(usize) -> Vector) -> f64 {
        let m = self.turns(position);
        // Sylvester's criterion.
        let minor = m[(0, 0)] * m[(1, 1)] - m[(0, 1)] * m[(1, 0)];
        let determinant = m.determinant();
        let is_inside = m[(0, 0)] > 0.0 && minor > 0.0 && determinant > 0.0 && self.hands.iter().all(|h| h.is_kept(x));
        if is_inside { self.log_scale + determinant.ln() } else { f64::NEG_INFINITY }
    }

    /// Places the core's atoms and returns log of the volume element.
    pub(super) fn to_positions(&self, y: &[f64], x: &mut [f64]) -> f64 {
        let mut all = self.centre.clone();
        for ((direction, y), s) in self.directions.chunks_exact(all.len()).zip(y).zip(&self.scales) {
            all.iter_mut().zip(direction).for_each(|(x, u)| *x += s * y * u);
        }
        self.atoms.iter().enumerate().for_each(|(i, &atom)| place(x, atom, point(&all, i)));
        self.ladj(x, |i| point(&all, i))
    }

    /// Writes the core's coordinates at positions x and returns log of the volume element.
    pub(super) fn to_coordinates(&self, x: &[f64], y: &mut [f64]) -> f64 {
        let mut all = about_centre(&self.atoms, x);
        superpose(&mut all, &self.centre);
        for ((direction, y), s) in self.directions.chunks_exact(all.len()).zip(y).zip(&self.scales) {
            *y = direction.iter().zip(&all).zip(&self.centre).map(|((u, x), c)| u * (x - c)).sum::<f64>() / s;
        }
        self.ladj(x, |i| point(&all, i))
    }

    /// Turns ∂E/∂x into ∂(E − ladj)/∂y.
    pub(super) fn pull_back(&self, x: &[f64], gradient_x: &[f64], gradient_y: &mut [f64]) {
        let mut all: Vec<f64> = self.atoms.iter().flat_map(|&atom| point(gradient_x, atom)).collect();
        // ∂ log det M/∂X_i = tr(M⁻¹) c_i − M⁻ᵀ c_i. Where M has no inverse there is no density to follow.
        if let Some(inverse) = self.turns(|i| point(x, self.atoms[i])).try_inverse() {
            let trace = inverse.trace();
            for (i, g) in all.chunks_exact_mut(3).enumerate() {
                let c = self.at(i);
                for a in 0..3 {
                    g[a] -= trace * c[a] - (0..3).map(|b| inverse[(b, a)] * c[b]).sum::<f64>();
                }
            }
        }
        for ((direction, g), s) in self.directions.chunks_exact(all.len()).zip(gradient_y).zip(&self.scales) {
            *g = s * direction.iter().zip(&all).map(|(u, g)| u * g).sum::<f64>();
        }
    }
}

/// The positions of the core's atoms about their centre.
fn about_centre(atoms: &[usize], x: &[f64]) -> Vec<f64> {
    let mut mean = [0.0; 3];
    atoms.iter().for_each(|&atom| add_scaled(&mut mean, 1.0 / atoms.len() as f64, point(x, atom)));
    atoms.iter().flat_map(|&atom| sub(point(x, atom), mean)).collect()
}

/// Turns positions to where they fit a structure best; both are about their centres.
fn superpose(x: &mut [f64], structure: &[f64]) {
    let turn = superposition(x, structure);
    for p in x.chunks_exact_mut(3) {
        let turned = [0, 1, 2].map(|a| (0..3).map(|b| turn[(a, b)] * p[b]).sum());
        p.copy_from_slice(&turned);
    }
}

/// Six orthonormal vectors of the rigid motions of a structure about its centre; nothing if its atoms are on a line.
fn rigid_motions(structure: &[f64]) -> Option<Vec<Vec<f64>>> {
    let axes = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    let shift = |axis: &Vector| structure.chunks_exact(3).flat_map(|_| *axis).collect::<Vec<f64>>();
    let turn =
        |axis: &Vector| structure.chunks_exact(3).flat_map(|p| cross(*axis, [p[0], p[1], p[2]])).collect::<Vec<f64>>();
    let size = structure.iter().map(|x| x * x).sum::<f64>().sqrt();
    let mut all: Vec<Vec<f64>> = Vec::new();
    for (mut motion, least) in
        axes.iter().map(shift).map(|m| (m, 0.5)).chain(axes.iter().map(turn).map(|m| (m, 1e-6 * size)))
    {
        // Twice, for the digits that the first subtraction loses.
        for _ in 0..2 {
            for other in &all {
                let along: f64 = motion.iter().zip(other).map(|(a, b)| a * b).sum();
                motion.iter_mut().zip(other).for_each(|(a, b)| *a -= along * b);
            }
        }
        let length = motion.iter().map(|x| x * x).sum::<f64>().sqrt();
        if length <= least {
            return None;
        }
        motion.iter_mut().for_each(|x| *x /= length);
        all.push(motion);
    }
    Some(all)
}

/// The centres of four bonds or more within the core that never turn inside out in the data. (Those of three bonds may.)
fn hands(atoms: &[usize], data: &[f64], dimension: usize, neighbours: &[Vec<usize>]) -> Vec<Hand> {
    let hand = |&centre: &usize| {
        let mut own = neighbours[centre].iter().copied().filter(|atom| atoms.contains(atom));
        if neighbours[centre].len() < 4 {
            return None;
        }
        let three = [own.next()?, own.next()?, own.next()?];
        let products = || data.chunks_exact(dimension).map(|x| Hand::product(centre, three, x));
        let mean = products().sum::<f64>() / products().count() as f64;
        let is_kept = products().all(|p| p * mean > 0.0);
        (is_kept && mean.abs() > UPRIGHT).then_some(Hand { centre, neighbours: three, positive: mean > 0.0 })
    };
    atoms.iter().filter_map(hand).collect()
}
