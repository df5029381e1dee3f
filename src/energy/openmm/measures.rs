//! What bonded expressions measure: coordinates, distances, angles and dihedrals, and their gradients.

use super::expression::Measure;
use super::lanes::{Lanes, Vector, WIDTH};
use super::vector::{add, cross, difference, dot, scaled, subtract, sum};

/// The least |u × v| in nm² that gradients divide by, as in OpenMM: a straight angle has no plane to bend in.
pub(super) const LEAST_CROSS: f64 = 1e-6;

/// The vectors between the atoms of a dihedral, and what its angle follows from.
pub(super) struct Dihedral {
    u: Vector,
    v: Vector,
    w: Vector,
    m: Vector,
    n: Vector,
    pub mm: Lanes,
    pub nn: Lanes,
    /// |v|.
    pub length: Lanes,
}

impl Dihedral {
    #[inline(always)]
    pub fn new(at: &[Vector], [i, j, k, l]: [usize; 4]) -> Self {
        let u = difference(&at[j], &at[i]);
        let v = difference(&at[k], &at[j]);
        let w = difference(&at[l], &at[k]);
        let (m, n) = (cross(&u, &v), cross(&v, &w));
        let (mm, nn, length) = (dot(&m, &m), dot(&n, &n), dot(&v, &v).sqrt());
        Self { u, v, w, m, n, mm, nn, length }
    }

    /// Sine and cosine, both times |m||n|.
    #[inline(always)]
    pub fn sine_and_cosine(&self) -> [Lanes; 2] {
        [self.length * dot(&self.u, &self.n), dot(&self.m, &self.n)]
    }

    /// Adds the gradient of an energy whose derivative with respect to the angle is `slope`: Blondel and Karplus,
    /// J. Comput. Chem. 17, 1132 (1996), equation 27.
    #[inline(always)]
    pub fn pull(&self, gradient: &mut [Vector], [i, j, k, l]: [usize; 4], slope: Lanes) {
        let (slope_m, slope_n) = (slope / self.mm, slope / self.nn);
        let pull_i = scaled(&self.m, -(slope_m * self.length));
        let pull_l = scaled(&self.n, slope_n * self.length);
        let along = scaled(&self.m, slope_m * (dot(&self.u, &self.v) / self.length));
        let along = sum(&along, &scaled(&self.n, slope_n * (dot(&self.w, &self.v) / self.length)));
        add(&mut gradient[i], &pull_i);
        add(&mut gradient[l], &pull_l);
        subtract(&mut gradient[j], &pull_i);
        add(&mut gradient[j], &along);
        subtract(&mut gradient[k], &pull_l);
        subtract(&mut gradient[k], &along);
    }
}

/// The angle in (−π, π] of a sine and a cosine in proportion.
#[inline(always)]
pub(super) fn signed_angle(sine: Lanes, cosine: Lanes) -> Lanes {
    let mut angle = sine;
    for lane in 0..WIDTH {
        angle.0[lane] = libm::atan2(sine.0[lane], cosine.0[lane]);
    }
    angle
}

impl Measure {
    /// Its value where `atoms` are the points of the expression.
    #[inline(always)]
    pub fn value(self, at: &[Vector], atoms: &[u32]) -> Lanes {
        let atom = |point: u8| atoms[usize::from(point)] as usize;
        match self {
            Self::Coordinate { point, axis } => at[atom(point)][usize::from(axis)],
            Self::Distance([a, b]) => {
                let d = difference(&at[atom(a)], &at[atom(b)]);
                dot(&d, &d).sqrt()
            }
            Self::Angle([a, b, c]) => {
                let (u, v) = (difference(&at[atom(a)], &at[atom(b)]), difference(&at[atom(c)], &at[atom(b)]));
                let w = cross(&u, &v);
                dot(&w, &w).sqrt().angle(dot(&u, &v))
            }
            Self::Dihedral(points) => {
                let [sine, cosine] = Dihedral::new(at, points.map(atom)).sine_and_cosine();
                signed_angle(sine, cosine)
            }
        }
    }

    /// Adds the gradient of an energy whose derivative with respect to the measure is `slope`.
    #[inline(always)]
    pub fn pull(self, at: &[Vector], atoms: &[u32], gradient: &mut [Vector], slope: Lanes) {
        let atom = |point: u8| atoms[usize::from(point)] as usize;
        match self {
            Self::Coordinate { point, axis } => gradient[atom(point)][usize::from(axis)] += slope,
            Self::Distance([a, b]) => pull_together(at, gradient, atom(a), atom(b), slope),
            Self::Angle([a, b, c]) => {
                let [a, b, c] = [a, b, c].map(atom);
                let (u, v) = (difference(&at[a], &at[b]), difference(&at[c], &at[b]));
                let w = cross(&u, &v);
                let slope = slope / dot(&w, &w).sqrt().at_least(LEAST_CROSS);
                let pull_a = scaled(&cross(&u, &w), slope / dot(&u, &u));
                let pull_c = scaled(&cross(&w, &v), slope / dot(&v, &v));
                add(&mut gradient[a], &pull_a);
                add(&mut gradient[c], &pull_c);
                subtract(&mut gradient[b], &pull_a);
                subtract(&mut gradient[b], &pull_c);
            }
            Self::Dihedral(points) => {
                let points = points.map(atom);
                Dihedral::new(at, points).pull(gradient, points, slope);
            }
        }
    }
}

/// Adds the gradient of an energy whose derivative with respect to the distance of two atoms is `slope`.
#[inline(always)]
pub(super) fn pull_together(at: &[Vector], gradient: &mut [Vector], i: usize, j: usize, slope: Lanes) {
    let d = difference(&at[i], &at[j]);
    let pull = pull_along(&d, dot(&d, &d).sqrt(), slope);
    add(&mut gradient[i], &pull);
    subtract(&mut gradient[j], &pull);
}

/// The gradient with respect to the first of two atoms, `d` and r being their difference and distance. Where they coincide
/// it has no direction, and there is none.
#[inline(always)]
pub(super) fn pull_along(d: &Vector, r: Lanes, slope: Lanes) -> Vector {
    scaled(d, (slope / r).zero_unless(r, 0.0))
}
