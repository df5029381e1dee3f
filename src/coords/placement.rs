//! Atoms placed one after the other by bond, angle and torsion (Parsons et al., J. Comput. Chem. 26, 1063 (2005)), and the
//! way back of a gradient, in reverse order.

use super::geometry::{Vector, add_scaled, cross, dot, norm, scaled, sub};
use super::zmatrix::ZMatrixRow;

/// Below this sine of the angle between the atoms that a torsion is measured from, it has no meaning.
const LEAST_SINE: f64 = 1e-9;

/// Where a row's atom is placed, and the frame that it is placed in.
struct Placement {
    e1: Vector,
    m: Vector,
    n: Vector,
    /// Length of the unnormalised n, and the vectors that it is made of.
    n_length: f64,
    p: Vector,
    q_length: f64,
}

impl Placement {
    /// The frame; nothing where the atoms that it is measured from are on a line.
    fn new(x: &[f64], row: &ZMatrixRow) -> Option<Self> {
        let [a, b, c] = [row.bond, row.angle, row.torsion].map(|atom| point(x, atom));
        let q = sub(a, b);
        let q_length = norm(q);
        let e1 = scaled(q, 1.0 / q_length);
        let p = sub(b, c);
        let w = cross(p, e1);
        let n_length = norm(w);
        let n = scaled(w, 1.0 / n_length);
        (n_length > LEAST_SINE * norm(p)).then(|| Self { e1, m: cross(n, e1), n, n_length, p, q_length })
    }
}

/// The position of an atom.
pub(super) fn point(x: &[f64], atom: usize) -> Vector {
    [x[3 * atom], x[3 * atom + 1], x[3 * atom + 2]]
}

/// Puts an atom where p is.
pub(super) fn place(x: &mut [f64], atom: usize, p: Vector) {
    x[3 * atom..3 * atom + 3].copy_from_slice(&p);
}

/// Places the atoms of the rows, row i by the values 3i, 3i + 1 and 3i + 2 (bond in nm, angle and torsion in radian), and
/// returns log Π r² sin θ; −∞ where a torsion is measured from atoms on a line.
pub(super) fn place_rows(rows: &[ZMatrixRow], mut value: impl FnMut(usize) -> f64, x: &mut [f64]) -> f64 {
    let (mut measure, mut log_measure) = (1.0f64, 0.0);
    let mut sound = true;
    for (i, row) in rows.iter().enumerate() {
        let (r, theta, phi) = (value(3 * i), value(3 * i + 1), value(3 * i + 2));
        let ((sin, cos), (sin_phi, cos_phi)) = (theta.sin_cos(), phi.sin_cos());
        let mut p = point(x, row.bond);
        match Placement::new(x, row) {
            Some(frame) => {
                add_scaled(&mut p, -r * cos, frame.e1);
                add_scaled(&mut p, r * sin * cos_phi, frame.m);
                add_scaled(&mut p, r * sin * sin_phi, frame.n);
            }
            // Somewhere finite: there is no density here.
            None => {
                sound = false;
                add_scaled(&mut p, r, [1.0, 0.0, 0.0]);
            }
        }
        place(x, row.atom, p);
        measure *= r * r * sin;
        // Eight factors of about 0.01 are far from underflow; a logarithm for each atom is not needed.
        if i % 8 == 7 {
            log_measure += measure.ln();
            measure = 1.0;
        }
    }
    if sound { log_measure + measure.ln() } else { f64::NEG_INFINITY }
}

/// Carries `gradient_x` of an energy from the rows' atoms to those before them, and writes the gradient of energy − log Π r²
/// sin θ by the values that `place_rows` was given.
pub(super) fn pull_back_rows(
    rows: &[ZMatrixRow],
    value: impl Fn(usize) -> f64,
    x: &[f64],
    gradient_x: &mut [f64],
    mut write: impl FnMut(usize, f64),
) {
    for (i, row) in rows.iter().enumerate().rev() {
        let (r, theta, phi) = (value(3 * i), value(3 * i + 1), value(3 * i + 2));
        let ((sin, cos), (sin_phi, cos_phi)) = (theta.sin_cos(), phi.sin_cos());
        let g = point(gradient_x, row.atom);
        let Some(Placement { e1, m, n, n_length, p, q_length }) = Placement::new(x, row) else {
            // No density, and no direction towards it.
            (0..3).for_each(|k| write(3 * i + k, 0.0));
            continue;
        };
        let (d1, d2, d3) = (-r * cos, r * sin * cos_phi, r * sin * sin_phi);
        let (g1, g2, g3) = (dot(g, e1), dot(g, m), dot(g, n));
        let dr = -cos * g1 + sin * cos_phi * g2 + sin * sin_phi * g3;
        let da = r * (sin * g1 + cos * cos_phi * g2 + cos * sin_phi * g3);
        write(3 * i, dr - 2.0 / r);
        write(3 * i + 1, da - cos / sin);
        write(3 * i + 2, -d3 * g2 + d2 * g3);

        // Reverse of: e1 = q/|q|, n = (p × e1)/|p × e1|, m = n × e1, atom = a + d1 e1 + d2 m + d3 n.
        let (mut ge, gm, mut gn) = (scaled(g, d1), scaled(g, d2), scaled(g, d3));
        add_scaled(&mut gn, 1.0, cross(e1, gm));
        add_scaled(&mut ge, 1.0, cross(gm, n));
        let mut gw = gn;
        add_scaled(&mut gw, -dot(n, gn), n);
        let gw = scaled(gw, 1.0 / n_length);
        let gp = cross(e1, gw);
        add_scaled(&mut ge, 1.0, cross(gw, p));
        let mut gq = ge;
        add_scaled(&mut gq, -dot(e1, ge), e1);
        let gq = scaled(gq, 1.0 / q_length);
        for k in 0..3 {
            gradient_x[3 * row.bond + k] += g[k] + gq[k];
            gradient_x[3 * row.angle + k] += gp[k] - gq[k];
            gradient_x[3 * row.torsion + k] -= gp[k];
        }
    }
}
