//! Bonds, angles and torsions of a Z-matrix as a flow's coordinates.
//!
//! A configuration without its six rigid motions has 3N − 6 of them, and the volume element Π r² sin θ (one factor for
//! each atom after the first; sin θ from the third on). Atoms are placed one after the other (Parsons et al., J. Comput.
//! Chem. 26, 1063 (2005)); the gradient goes back through the placements in reverse order.

use super::geometry::{Vector, add_scaled, angle, cross, dihedral, distance, dot, norm, scaled, sub};
use super::tables::{Measure, TransformKind, TransformTables};
use super::transform::{CoordinateKind, CoordinateTransform, CoordinatesError, CoordinatesSpec};
use super::zmatrix::{ZMatrix, ZMatrixRow};
use crate::math::special::wrap_angle;
use std::f64::consts::PI;

/// What a coordinate measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InternalQuantity {
    /// A distance in nm.
    Bond,
    /// An angle in radian.
    Angle,
    /// A dihedral in radian.
    Torsion,
}

/// One coordinate: value = centre + scale·y. A circular torsion has scale 1 and is wrapped; a real torsion has less than
/// a turn, and only the half circle about `half_circle` (radian) if there is one.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct InternalCoordinate {
    pub quantity: InternalQuantity,
    pub kind: CoordinateKind,
    pub centre: f64,
    pub scale: f64,
    pub half_circle: Option<f64>,
}

impl InternalCoordinate {
    /// The value (nm or radian) at y, or nothing if it is outside of the coordinate's domain.
    fn value(&self, y: f64) -> Option<f64> {
        let value = self.centre + self.scale * y;
        match (self.quantity, self.kind) {
            (InternalQuantity::Bond, _) => (value > 0.0).then_some(value),
            (InternalQuantity::Angle, _) => (value > 0.0 && value < PI).then_some(value),
            (InternalQuantity::Torsion, CoordinateKind::Circular) => Some(value),
            (InternalQuantity::Torsion, CoordinateKind::Real) => {
                let (middle, reach) = self.torsion_range();
                ((value - middle).abs() < reach).then_some(value)
            }
        }
    }

    /// The middle of a real torsion's domain, and how far it reaches to both sides.
    fn torsion_range(&self) -> (f64, f64) {
        match self.half_circle {
            None => (self.centre, PI),
            Some(middle) => (self.centre + wrap_angle(middle - self.centre), PI / 2.0),
        }
    }

    fn measure(&self) -> Measure {
        match (self.quantity, self.kind) {
            (InternalQuantity::Bond, _) => Measure::Bond,
            (InternalQuantity::Angle, _) => Measure::Angle,
            (InternalQuantity::Torsion, CoordinateKind::Circular) => Measure::CircularTorsion,
            (InternalQuantity::Torsion, CoordinateKind::Real) => Measure::RealTorsion,
        }
    }

    fn coordinate(&self, value: f64) -> f64 {
        match (self.quantity, self.kind) {
            (InternalQuantity::Torsion, CoordinateKind::Circular) => wrap_angle(value - self.centre),
            (InternalQuantity::Torsion, CoordinateKind::Real) => wrap_angle(value - self.centre) / self.scale,
            _ => (value - self.centre) / self.scale,
        }
    }
}

/// The internal coordinates of a molecule.
///
/// Coordinates 0, 1 and 2 are the frame's: root–second, root–third, second–root–third. Then each row of the Z-matrix has
/// its bond, its angle and its torsion.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct InternalCoordinates {
    zmatrix: ZMatrix,
    coordinates: Vec<InternalCoordinate>,
    #[serde(skip)]
    kinds: Vec<CoordinateKind>,
    #[serde(skip)]
    log_scale: f64,
}

impl InternalCoordinates {
    pub fn new(zmatrix: ZMatrix, coordinates: Vec<InternalCoordinate>) -> Result<Self, CoordinatesError> {
        Self { zmatrix, coordinates, kinds: Vec::new(), log_scale: 0.0 }.checked()
    }

    pub(super) fn checked(mut self) -> Result<Self, CoordinatesError> {
        self.zmatrix.check()?;
        let quantities = Self::quantities(&self.zmatrix);
        let sound = self.coordinates.len() == quantities.len()
            && self.coordinates.iter().zip(quantities).all(|(c, quantity)| {
                let circular = c.kind == CoordinateKind::Circular;
                c.quantity == quantity
                    && c.centre.is_finite()
                    && c.scale.is_finite()
                    && c.scale > 0.0
                    && (!circular || (quantity == InternalQuantity::Torsion && c.scale == 1.0))
                    && c.half_circle.is_none_or(|middle| {
                        let inside = wrap_angle(middle - c.centre).abs() < PI / 2.0;
                        quantity == InternalQuantity::Torsion && !circular && inside
                    })
            });
        if !sound {
            return Err(CoordinatesError::Stored("internal coordinates do not fit their Z-matrix".into()));
        }
        self.kinds = self.coordinates.iter().map(|c| c.kind).collect();
        self.log_scale = self.coordinates.iter().map(|c| c.scale.ln()).sum();
        Ok(self)
    }

    /// What each coordinate of a Z-matrix measures.
    pub fn quantities(zmatrix: &ZMatrix) -> Vec<InternalQuantity> {
        use InternalQuantity::{Angle, Bond, Torsion};
        let mut all = vec![Bond, Bond, Angle];
        zmatrix.rows.iter().for_each(|_| all.extend([Bond, Angle, Torsion]));
        all
    }

    /// The values (nm and radian) of all coordinates at positions x.
    pub fn measure(zmatrix: &ZMatrix, x: &[f64]) -> Vec<f64> {
        let [first, second, third] = zmatrix.frame.map(|atom| point(x, atom));
        let mut values = vec![distance(first, second), distance(first, third), angle(second, first, third)];
        for row in &zmatrix.rows {
            let [atom, a, b, c] = [row.atom, row.bond, row.angle, row.torsion].map(|atom| point(x, atom));
            values.extend([distance(atom, a), angle(atom, a, b), dihedral(atom, a, b, c)]);
        }
        values
    }

    pub fn zmatrix(&self) -> &ZMatrix {
        &self.zmatrix
    }

    pub fn coordinates(&self) -> &[InternalCoordinate] {
        &self.coordinates
    }

    /// log of Π r² sin θ and the scales.
    fn ladj(&self, values: impl Fn(usize) -> f64) -> f64 {
        let mut sum = self.log_scale + 2.0 * values(0).ln() + 2.0 * values(1).ln() + values(2).sin().ln();
        for k in (3..self.coordinates.len()).step_by(3) {
            sum += 2.0 * values(k).ln() + values(k + 1).sin().ln();
        }
        sum
    }
}

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
    fn new(x: &[f64], row: &ZMatrixRow) -> Self {
        let [a, b, c] = [row.bond, row.angle, row.torsion].map(|atom| point(x, atom));
        let q = sub(a, b);
        let q_length = norm(q);
        let e1 = scaled(q, 1.0 / q_length);
        let p = sub(b, c);
        let w = cross(p, e1);
        let n_length = norm(w);
        let n = scaled(w, 1.0 / n_length);
        Self { e1, m: cross(n, e1), n, n_length, p, q_length }
    }
}

fn point(x: &[f64], atom: usize) -> Vector {
    [x[3 * atom], x[3 * atom + 1], x[3 * atom + 2]]
}

impl CoordinateTransform for InternalCoordinates {
    fn kinds(&self) -> &[CoordinateKind] {
        &self.kinds
    }

    fn position_dimension(&self) -> usize {
        3 * self.zmatrix.atoms()
    }

    fn to_positions(&self, y: &[f64], x: &mut [f64]) -> f64 {
        let mut inside = true;
        let mut value = |k: usize| {
            let c = &self.coordinates[k];
            c.value(y[k]).unwrap_or_else(|| {
                inside = false;
                c.centre
            })
        };
        let place = |x: &mut [f64], atom: usize, p: Vector| x[3 * atom..3 * atom + 3].copy_from_slice(&p);
        let [first, second, third] = self.zmatrix.frame;
        let (r2, r3, theta) = (value(0), value(1), value(2));
        place(x, first, [0.0; 3]);
        place(x, second, [0.0, 0.0, r2]);
        place(x, third, [r3 * theta.sin(), 0.0, r3 * theta.cos()]);
        let mut measure = r2 * r2 * r3 * r3 * theta.sin();
        let mut log_measure = 0.0;
        for (i, row) in self.zmatrix.rows.iter().enumerate() {
            let (r, theta, phi) = (value(3 * i + 3), value(3 * i + 4), value(3 * i + 5));
            let frame = Placement::new(x, row);
            let ((sin, cos), (sin_phi, cos_phi)) = (theta.sin_cos(), phi.sin_cos());
            let mut p = point(x, row.bond);
            add_scaled(&mut p, -r * cos, frame.e1);
            add_scaled(&mut p, r * sin * cos_phi, frame.m);
            add_scaled(&mut p, r * sin * sin_phi, frame.n);
            place(x, row.atom, p);
            measure *= r * r * sin;
            // Eight factors of about 0.01 are far from underflow; a logarithm for each atom is not needed.
            if i % 8 == 7 {
                log_measure += measure.ln();
                measure = 1.0;
            }
        }
        if inside { self.log_scale + log_measure + measure.ln() } else { f64::NEG_INFINITY }
    }

    fn to_coordinates(&self, x: &[f64], y: &mut [f64]) -> f64 {
        let values = Self::measure(&self.zmatrix, x);
        for ((y, value), c) in y.iter_mut().zip(&values).zip(&self.coordinates) {
            *y = c.coordinate(*value);
        }
        self.ladj(|k| values[k])
    }

    fn pull_back(&self, y: &[f64], x: &[f64], gradient_x: &mut [f64], gradient_y: &mut [f64]) {
        let value = |k: usize| self.coordinates[k].centre + self.coordinates[k].scale * y[k];
        let mut write = |k: usize, dr: f64, da: f64| {
            gradient_y[k] = self.coordinates[k].scale * dr;
            gradient_y[k + 1] = self.coordinates[k + 1].scale * da;
        };
        let mut torsions = vec![0.0; self.zmatrix.rows.len()];
        for (i, row) in self.zmatrix.rows.iter().enumerate().rev() {
            let (r, theta, phi) = (value(3 * i + 3), value(3 * i + 4), value(3 * i + 5));
            let ((sin, cos), (sin_phi, cos_phi)) = (theta.sin_cos(), phi.sin_cos());
            let Placement { e1, m, n, n_length, p, q_length } = Placement::new(x, row);
            let g = point(gradient_x, row.atom);
            let (d1, d2, d3) = (-r * cos, r * sin * cos_phi, r * sin * sin_phi);
            let (g1, g2, g3) = (dot(g, e1), dot(g, m), dot(g, n));
            let dr = -cos * g1 + sin * cos_phi * g2 + sin * sin_phi * g3;
            let da = r * (sin * g1 + cos * cos_phi * g2 + cos * sin_phi * g3);
            write(3 * i + 3, dr - 2.0 / r, da - cos / sin);
            torsions[i] = -d3 * g2 + d2 * g3;

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
        let [_, second, third] = self.zmatrix.frame;
        let (g2, g3) = (point(gradient_x, second), point(gradient_x, third));
        let (r2, r3) = (value(0), value(1));
        let (sin, cos) = value(2).sin_cos();
        write(0, g2[2] - 2.0 / r2, g3[0] * sin + g3[2] * cos - 2.0 / r3);
        gradient_y[2] = self.coordinates[2].scale * (r3 * (g3[0] * cos - g3[2] * sin) - cos / sin);
        for (i, torsion) in torsions.into_iter().enumerate() {
            gradient_y[3 * i + 5] = self.coordinates[3 * i + 5].scale * torsion;
        }
    }

    fn tables(&self) -> Option<TransformTables> {
        // Kinds are known of what was checked.
        if self.kinds.is_empty() || self.kinds.len() != self.coordinates.len() {
            return None;
        }
        let (d, positions) = (self.coordinates.len() as u32, self.position_dimension() as u32);
        let mut integers = vec![TransformKind::Internal as u32, d, positions];
        integers.extend(self.zmatrix.frame.map(|atom| atom as u32));
        for row in &self.zmatrix.rows {
            integers.extend([row.atom, row.bond, row.angle, row.torsion].map(|atom| atom as u32));
        }
        let mut numbers = vec![self.log_scale];
        for c in &self.coordinates {
            integers.push(c.measure() as u32);
            let (middle, reach) = c.torsion_range();
            numbers.extend([c.centre, c.scale, middle, reach]);
        }
        Some(TransformTables { integers, numbers })
    }

    fn spec(&self) -> CoordinatesSpec {
        CoordinatesSpec::Internal(self.clone())
    }

    fn description(&self) -> String {
        let torsions = || self.coordinates.iter().filter(|c| c.quantity == InternalQuantity::Torsion);
        let halves = torsions().filter(|c| c.half_circle.is_some()).count();
        format!(
            "{} internal coordinates of a Z-matrix (bonds in nm, angles and torsions in radian; measure Π r² sin θ, rigid \
             motions integrated out): {} torsions have the whole circle, {halves} between atoms on the same centre only \
             the half circle of the reference structure or data, which fixes chirality and the order of equivalent \
             hydrogens",
            self.coordinates.len(),
            torsions().count() - halves,
        )
    }
}
