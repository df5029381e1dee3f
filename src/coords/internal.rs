//! Bonds, angles and torsions of a Z-matrix as a flow's coordinates.
//!
//! A configuration without its six rigid motions has 3N − 6 of them, and the volume element Π r² sin θ (one factor for
//! each atom after the first; sin θ from the third on). Of the mixed coordinates of Noé et al., Science 365, eaaw1147 (2019),
//! they are the part beside a core in whitened Cartesian coordinates, which takes the place of the first three atoms.

use super::core::WhitenedCore;
use super::equivalent::put_in_order;
use super::geometry::{angle, dihedral, distance};
use super::placement::{place, place_rows, point, pull_back_rows};
use super::quantity::{InternalCoordinate, InternalQuantity};
use super::tables::{TransformKind, TransformTables};
use super::transform::{CoordinateKind, CoordinateTransform, CoordinatesError, CoordinatesSpec};
use super::zmatrix::{Base, ZMatrix};
use crate::math::special::wrap_angle;
use std::f64::consts::PI;

/// The internal coordinates of a molecule.
///
/// Coordinates 0, 1 and 2 are the frame's: root–second, root–third, second–root–third. Then each row of the Z-matrix has
/// its bond, its angle and its torsion. Those that are not fixed are the flow's, in this order. Where there is a core instead
/// of the frame, its coordinates are the first of the flow's.
///
/// A fixed coordinate is integrated over with a delta function of the constrained distance, as the limit of a stiff spring
/// would be; constants are left out. (Dynamics with rigid constraints samples another density, by the square root of the
/// mass-metric determinant of Fixman, Proc. Natl. Acad. Sci. 71, 3050 (1974), which hardly varies where the constraints are
/// bonds to hydrogens.)
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct InternalCoordinates {
    zmatrix: ZMatrix,
    /// What places the base of the Z-matrix, if it is not a frame.
    core: Option<WhitenedCore>,
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
    /// `core` places the base of a Z-matrix around it. `pairs` are rows of equivalent atoms, that with the positive torsion
    /// first.
    pub fn new(
        zmatrix: ZMatrix,
        core: Option<WhitenedCore>,
        coordinates: Vec<InternalCoordinate>,
        pairs: Vec<[usize; 2]>,
    ) -> Result<Self, CoordinatesError> {
        Self { zmatrix, core, coordinates, pairs, kinds: Vec::new(), places: Vec::new(), log_scale: 0.0 }.checked()
    }

    pub(super) fn checked(mut self) -> Result<Self, CoordinatesError> {
        self.zmatrix.check()?;
        self.core = self.core.map(WhitenedCore::checked).transpose()?;
        let quantities = Self::quantities(&self.zmatrix);
        let bases_agree = match (&self.zmatrix.base, &self.core) {
            (Base::Frame(_), None) => true,
            (Base::Core(atoms), Some(core)) => atoms == core.atoms(),
            _ => false,
        };
        let sound = bases_agree
            && self.coordinates.len() == quantities.len()
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
            && (self.core.is_some() || self.coordinates.iter().any(|c| !c.fixed));
        if !sound || !self.pairs_are_sound() {
            return Err(CoordinatesError::Stored("internal coordinates do not fit their Z-matrix".into()));
        }
        let free = || self.coordinates.iter().filter(|c| !c.fixed);
        let of_core = self.core.as_ref().map_or(0, WhitenedCore::dimension);
        self.kinds = vec![CoordinateKind::Real; of_core];
        self.kinds.extend(free().map(|c| c.kind));
        let scales: f64 = free().filter(|c| c.kind == CoordinateKind::Real).map(|c| c.scale.ln()).sum();
        self.log_scale = scales + self.pairs.len() as f64 * 2f64.ln();
        let mut next = of_core;
        self.places = Vec::with_capacity(self.coordinates.len());
        for c in &self.coordinates {
            self.places.push((!c.fixed).then_some(next));
            next += usize::from(!c.fixed);
        }
        Ok(self)
    }

    /// That each pair is two rows with the same references and opposite half circles, and no row is in two.
    fn pairs_are_sound(&self) -> bool {
        let first = self.zmatrix.base.internal_coordinates();
        let half = |row: usize| self.coordinates.get(first + 3 * row + 2).and_then(|c| c.half_circle);
        let is_reference = self.zmatrix.references();
        let is_leaf = |row: usize| !is_reference[self.zmatrix.rows[row].atom];
        let references = |row: usize| self.zmatrix.rows.get(row).map(|r| [r.bond, r.angle, r.torsion]);
        let mut rows: Vec<usize> = self.pairs.iter().flatten().copied().collect();
        rows.sort_unstable();
        rows.last().is_none_or(|last| *last < self.zmatrix.rows.len())
            && rows.windows(2).all(|pair| pair[0] != pair[1])
            && self.pairs.iter().all(|&[first, second]| {
                references(first) == references(second)
                    && is_leaf(first)
                    && is_leaf(second)
                    && half(first) == Some(PI / 2.0)
                    && half(second) == Some(-PI / 2.0)
            })
    }

    /// What each coordinate of a Z-matrix measures.
    pub fn quantities(zmatrix: &ZMatrix) -> Vec<InternalQuantity> {
        use InternalQuantity::{Angle, Bond, Torsion};
        let mut all = match zmatrix.base {
            Base::Frame(_) => vec![Bond, Bond, Angle],
            Base::Core(_) => Vec::new(),
        };
        zmatrix.rows.iter().for_each(|_| all.extend([Bond, Angle, Torsion]));
        all
    }

    /// The values (nm and radian) of all coordinates at positions x.
    pub fn measure(zmatrix: &ZMatrix, x: &[f64]) -> Vec<f64> {
        let mut values = Vec::with_capacity(zmatrix.base.internal_coordinates() + 3 * zmatrix.rows.len());
        if let Base::Frame(frame) = zmatrix.base {
            let [first, second, third] = frame.map(|atom| point(x, atom));
            values.extend([distance(first, second), distance(first, third), angle(second, first, third)]);
        }
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

    /// log of Π r² sin θ and the scales, of what is not the core.
    fn ladj(&self, values: impl Fn(usize) -> f64) -> f64 {
        let first = self.zmatrix.base.internal_coordinates();
        let mut sum = self.log_scale;
        if let Base::Frame(_) = self.zmatrix.base {
            sum += 2.0 * values(0).ln() + 2.0 * values(1).ln() + values(2).sin().ln();
        }
        for k in (first..self.coordinates.len()).step_by(3) {
            sum += 2.0 * values(k).ln() + values(k + 1).sin().ln();
        }
        sum
    }
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
        let log_base = match (&self.zmatrix.base, &self.core) {
            (Base::Frame([first, second, third]), _) => {
                let (r2, r3, theta) = (value(0), value(1), value(2));
                place(x, *first, [0.0; 3]);
                place(x, *second, [0.0, 0.0, r2]);
                place(x, *third, [r3 * theta.sin(), 0.0, r3 * theta.cos()]);
                (r2 * r2 * r3 * r3 * theta.sin()).ln()
            }
            (Base::Core(_), core) => core.as_ref().map_or(f64::NEG_INFINITY, |core| core.to_positions(y, x)),
        };
        let first = self.zmatrix.base.internal_coordinates();
        let log_rows = place_rows(&self.zmatrix.rows, |k| value(first + k), x);
        if inside { self.log_scale + log_base + log_rows } else { f64::NEG_INFINITY }
    }

    fn to_coordinates(&self, x: &[f64], y: &mut [f64]) -> f64 {
        let mut values = Self::measure(&self.zmatrix, x);
        put_in_order(&self.zmatrix, &self.pairs, &mut values);
        for ((value, c), place) in values.iter().zip(&self.coordinates).zip(&self.places) {
            if let Some(place) = place {
                y[*place] = c.coordinate(*value);
            }
        }
        let log_core = self.core.as_ref().map_or(0.0, |core| core.to_coordinates(x, y));
        log_core + self.ladj(|k| if self.places[k].is_some() { values[k] } else { self.coordinates[k].centre })
    }

    fn pull_back(&self, y: &[f64], x: &[f64], gradient_x: &mut [f64], gradient_y: &mut [f64]) {
        let value = |k: usize| self.raw(k, y);
        let mut write = |k: usize, g: f64| {
            if let Some(place) = self.places[k] {
                gradient_y[place] = self.coordinates[k].scale * g;
            }
        };
        let first = self.zmatrix.base.internal_coordinates();
        pull_back_rows(&self.zmatrix.rows, |k| value(first + k), x, gradient_x, |k, g| write(first + k, g));
        if let Base::Frame([_, second, third]) = self.zmatrix.base {
            let (g2, g3) = (point(gradient_x, second), point(gradient_x, third));
            let (r2, r3) = (value(0), value(1));
            let (sin, cos) = value(2).sin_cos();
            write(0, g2[2] - 2.0 / r2);
            write(1, g3[0] * sin + g3[2] * cos - 2.0 / r3);
            write(2, r3 * (g3[0] * cos - g3[2] * sin) - cos / sin);
        }
        if let Some(core) = &self.core {
            core.pull_back(x, gradient_x, gradient_y);
        }
    }

    fn tables(&self) -> Option<TransformTables> {
        // Kinds are known of what was checked.
        let Base::Frame(frame) = self.zmatrix.base else { return None };
        if self.places.len() != self.coordinates.len() {
            return None;
        }
        let (d, positions) = (self.kinds.len() as u32, self.position_dimension() as u32);
        let mut integers = vec![TransformKind::Internal as u32, d, positions];
        integers.extend(frame.map(|atom| atom as u32));
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
        let internal = self.kinds.len() - self.core.as_ref().map_or(0, WhitenedCore::dimension);
        let mut text = match &self.core {
            None => String::new(),
            Some(core) => format!(
                "{} whitened Cartesian coordinates (principal axes of the data, nm) of a core of {} atoms, of which {} \
                 centres keep the hand that they have in the data, and equivalent atoms are told apart, and ",
                core.dimension(),
                core.atoms().len(),
                core.hands(),
            ),
        };
        text.push_str(&format!(
            "{internal} internal coordinates of a Z-matrix (bonds in nm, angles and torsions in radian; measure Π r² sin θ, \
             rigid motions integrated out): {} torsions have the whole circle, {halves} between atoms on the same centre \
             only the half circle of the reference structure or data, which fixes chirality",
            torsions().count() - halves,
        ));
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
