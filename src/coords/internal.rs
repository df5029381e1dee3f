//! Bonds, angles and torsions of a Z-matrix as a flow's coordinates.
//!
//! A configuration without its six rigid motions has 3N − 6 of them, and the volume element Π r² sin θ (one factor for
//! each atom after the first; sin θ from the third on). Atoms are placed one after the other (Parsons et al., J. Comput.
//! Chem. 26, 1063 (2005)); the gradient goes back through the placements in reverse order.

use super::equivalent::put_in_order;
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

/// One coordinate: value = centre + scale·y. A circular torsion has scale 1 and is wrapped; a real torsion has less than a turn, and only the half circle about `half_circle` (radian) if there is one. A
/// constraint's coordinate is fixed: its value is its centre, and the flow has none for it.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct InternalCoordinate {
    pub quantity: InternalQuantity,
    pub kind: CoordinateKind,
    pub centre: f64,
    pub scale: f64,
    pub half_circle: Option<f64>,
    pub fixed: bool,
}

impl InternalCoordinate {
    /// The value (nm or radian), or nothing if it is outside of the coordinate's domain.
    fn within(&self, value: f64) -> Option<f64> {
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
            _ if self.fixed => Measure::Fixed,
            (InternalQuantity::Bond, _) => Measure::Bond,
            (InternalQuantity::Angle, _) => Measure::Angle,
            (InternalQuantity::Torsion, CoordinateKind::Circular) => Measure::CircularTorsion,
            (InternalQuantity::Torsion, CoordinateKind::Real) => Measure::RealTorsion,
        }
    }

    fn coordinate(&self, value: f64) -> f64 {
        match (self.quantity, self.kind) {
            (InternalQuantity::Torsion, CoordinateKind::Circular) => wrap_angle((value - self.centre) / self.scale),
            (InternalQuantity::Torsion, CoordinateKind::Real) => wrap_angle(value - self.centre) / self.scale,
            _ => (value - self.centre) / self.scale,
        }
    }
}

/// The internal coordinates of a molecule.
///
/// Coordinates 0, 1 and 2 are the frame's: root–second, root–third, second–root–third. Then each row of the Z-matrix has
/// its bond, its angle and its torsion. Those that are not fixed are the flow's, in this order.
///
/// A fixed coordinate is integrated over with a delta function of the constrained distance, as the limit of a stiff spring
/// would be; constants are left out. (Dynamics with rigid constraints samples another density, by the square root of the
/// mass-metric determinant of Fixman, Proc. Natl. Acad. Sci. 71, 3050 (1974), which hardly varies where the constraints are
/// bonds to hydrogens.)
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct InternalCoordinates {
    zmatrix: ZMatrix,
    coordinates: Vec<InternalCoordinate>,
    /// Rows of two equivalent atoms, whose torsions keep to the positive and the negative half circle: this order stands
    /// for the other too, as a factor of two in the density. Positions in the other are put into this one.
    pairs: Vec<[usize; 2]>,
    #[serde(skip)]
    kinds: Vec<CoordinateKind>,
    /// Which of the flow's coordinates each is.
    #[serde(skip)]
    places: Vec<Option<usize>>,
    #[serde(skip)]
    log_scale: f64,
}

impl InternalCoordinates {
    /// `pairs` are rows of equivalent atoms, that with the positive torsion first.
    pub fn new(
        zmatrix: ZMatrix,
        coordinates: Vec<InternalCoordinate>,
        pairs: Vec<[usize; 2]>,
    ) -> Result<Self, CoordinatesError> {
        Self { zmatrix, coordinates, pairs, kinds: Vec::new(), places: Vec::new(), log_scale: 0.0 }.checked()
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
                    && (!circular || (quantity == InternalQuantity::Torsion && c.scale == 1.0 && !c.fixed))
                    && (!c.fixed || c.within(c.centre).is_some())
                    && c.half_circle.is_none_or(|middle| {
                        let inside = wrap_angle(middle - c.centre).abs() < PI / 2.0;
                        quantity == InternalQuantity::Torsion && !circular && inside
                    })
            })
            && self.coordinates.iter().any(|c| !c.fixed);
        if !sound || !self.pairs_are_sound() {
            return Err(CoordinatesError::Stored("internal coordinates do not fit their Z-matrix".into()));
        }
        let free = || self.coordinates.iter().filter(|c| !c.fixed);
        self.kinds = free().map(|c| c.kind).collect();
        let scales: f64 = free().filter(|c| c.kind == CoordinateKind::Real).map(|c| c.scale.ln()).sum();
        self.log_scale = scales + self.pairs.len() as f64 * 2f64.ln();
        let mut next = 0;
        self.places = Vec::with_capacity(self.coordinates.len());
        for c in &self.coordinates {
            self.places.push((!c.fixed).then_some(next));
            next += usize::from(!c.fixed);
        }
        Ok(self)
    }

    /// That each pair is two rows with the same references and opposite half circles, and no row is in two.
    fn pairs_are_sound(&self) -> bool {
        let half = |row: usize| self.coordinates.get(3 * row + 5).and_then(|c| c.half_circle);
        let references = |row: usize| self.zmatrix.rows.get(row).map(|r| [r.bond, r.angle, r.torsion]);
        let mut rows: Vec<usize> = self.pairs.iter().flatten().copied().collect();
        rows.sort_unstable();
        rows.windows(2).all(|pair| pair[0] != pair[1])
            && self.pairs.iter().all(|&[first, second]| {
                references(first) == references(second)
                    && half(first) == Some(PI / 2.0)
                    && half(second) == Some(-PI / 2.0)
            })
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

    /// The value of a coordinate at y, whether inside of its domain or not.
    fn raw(&self, k: usize, y: &[f64]) -> f64 {
        let c = &self.coordinates[k];
        self.places[k].map_or(c.centre, |place| c.centre + c.scale * y[place])
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
            c.within(self.raw(k, y)).unwrap_or_else(|| {
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
        let mut sound = true;
        for (i, row) in self.zmatrix.rows.iter().enumerate() {
            let (r, theta, phi) = (value(3 * i + 3), value(3 * i + 4), value(3 * i + 5));
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
        if inside && sound { self.log_scale + log_measure + measure.ln() } else { f64::NEG_INFINITY }
    }

    fn to_coordinates(&self, x: &[f64], y: &mut [f64]) -> f64 {
        let mut values = Self::measure(&self.zmatrix, x);
        put_in_order(&self.pairs, &mut values);
        for ((value, c), place) in values.iter().zip(&self.coordinates).zip(&self.places) {
            if let Some(place) = place {
                y[*place] = c.coordinate(*value);
            }
        }
        self.ladj(|k| if self.places[k].is_some() { values[k] } else { self.coordinates[k].centre })
    }

    fn pull_back(&self, y: &[f64], x: &[f64], gradient_x: &mut [f64], gradient_y: &mut [f64]) {
        let value = |k: usize| self.raw(k, y);
        let mut write = |k: usize, g: f64| {
            if let Some(place) = self.places[k] {
                gradient_y[place] = self.coordinates[k].scale * g;
            }
        };
        for (i, row) in self.zmatrix.rows.iter().enumerate().rev() {
            let (r, theta, phi) = (value(3 * i + 3), value(3 * i + 4), value(3 * i + 5));
            let ((sin, cos), (sin_phi, cos_phi)) = (theta.sin_cos(), phi.sin_cos());
            let g = point(gradient_x, row.atom);
            let Some(Placement { e1, m, n, n_length, p, q_length }) = Placement::new(x, row) else {
                // No density, and no direction towards it.
                write(3 * i + 3, 0.0);
                write(3 * i + 4, 0.0);
                write(3 * i + 5, 0.0);
                continue;
            };
            let (d1, d2, d3) = (-r * cos, r * sin * cos_phi, r * sin * sin_phi);
            let (g1, g2, g3) = (dot(g, e1), dot(g, m), dot(g, n));
            let dr = -cos * g1 + sin * cos_phi * g2 + sin * sin_phi * g3;
            let da = r * (sin * g1 + cos * cos_phi * g2 + cos * sin_phi * g3);
            write(3 * i + 3, dr - 2.0 / r);
            write(3 * i + 4, da - cos / sin);
            write(3 * i + 5, -d3 * g2 + d2 * g3);

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
        write(0, g2[2] - 2.0 / r2);
        write(1, g3[0] * sin + g3[2] * cos - 2.0 / r3);
        write(2, r3 * (g3[0] * cos - g3[2] * sin) - cos / sin);
    }

    fn tables(&self) -> Option<TransformTables> {
        // Kinds are known of what was checked.
        if self.kinds.is_empty() || self.kinds.len() != self.coordinates.len() {
            return None;
        }
        let (d, positions) = (self.kinds.len() as u32, self.position_dimension() as u32);
        let mut integers = vec![TransformKind::Internal as u32, d, positions];
        integers.extend(self.zmatrix.frame.map(|atom| atom as u32));
        for (i, row) in self.zmatrix.rows.iter().enumerate() {
            integers.extend([row.atom, row.bond, row.angle, row.torsion].map(|atom| atom as u32));
            let other = self.pairs.iter().find(|pair| pair[0] == i).map(|pair| pair[1]);
            integers.push(other.map_or(u32::MAX, |other| other as u32));
        }
        let mut numbers = vec![self.log_scale];
        for (c, place) in self.coordinates.iter().zip(&self.places) {
            integers.extend([c.measure() as u32, place.map_or(u32::MAX, |place| place as u32)]);
            let (middle, reach) = c.torsion_range();
            numbers.extend([c.centre, c.scale, middle, reach]);
        }
        Some(TransformTables { integers, numbers })
    }

    fn spec(&self) -> CoordinatesSpec {
        CoordinatesSpec::Internal(self.clone())
    }

    fn description(&self) -> String {
        let torsions = || self.coordinates.iter().filter(|c| c.quantity == InternalQuantity::Torsion && !c.fixed);
        let halves = torsions().filter(|c| c.half_circle.is_some()).count();
        let mut text = format!(
            "{} internal coordinates of a Z-matrix (bonds in nm, angles and torsions in radian; measure Π r² sin θ, rigid \
             motions integrated out): {} torsions have the whole circle, {halves} between atoms on the same centre only \
             the half circle of the reference structure or data, which fixes chirality",
            self.kinds.len(),
            torsions().count() - halves,
        );
        if !self.pairs.is_empty() {
            text.push_str(&format!(
                "; {} pairs of equivalent atoms have one of their two orders, which stands for both: log Z counts both, \
                 with the symmetry number 2 of each",
                self.pairs.len(),
            ));
        }
        let fixed = self.coordinates.iter().filter(|c| c.fixed).count();
        if fixed > 0 {
            text.push_str(&format!("; {fixed} more are fixed by constraints"));
        }
        text
    }
}
