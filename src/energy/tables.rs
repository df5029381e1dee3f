//! A potential as flat arrays of numbers, for processors that know no structs of ours.
//!
//! The layouts are those that `energy/cuda` reads, and said there.

/// What a potential is evaluated from. Only the potentials of this module make any, so that no index in them is out of
/// range.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PotentialTables {
    integers: Vec<u32>,
    numbers: Vec<f64>,
}

/// The kinds of potentials, as `energy/cuda/analytic.cuh` numbers them.
#[derive(Clone, Copy, Debug)]
pub(super) enum PotentialKind {
    Harmonic = 0,
    DoubleWell = 1,
    MullerBrown = 2,
    ManyWell = 3,
    GaussianMixture = 4,
    Mechanics = 5,
}

/// Where d is among the integers.
const DIMENSION: usize = 1;

/// Where `scratch` is among the integers.
const SCRATCH: usize = 2;

impl PotentialTables {
    /// Tables of an analytic potential in d dimensions; `extra` integers follow the three that every potential has.
    pub(super) fn analytic(kind: PotentialKind, dimension: usize, extra: &[u32], numbers: Vec<f64>) -> Self {
        let mut integers = vec![kind as u32, dimension as u32, 0];
        integers.extend_from_slice(extra);
        Self { integers, numbers }
    }

    /// Tables of molecular mechanics over 3N coordinates: (kind, tables) of each force, and the numbers of scratch space
    /// that they need.
    pub(super) fn mechanics(dimension: usize, scratch: usize, forces: &[(ForceKind, ForceTables)]) -> Self {
        let mut integers = vec![PotentialKind::Mechanics as u32, dimension as u32, scratch as u32, forces.len() as u32];
        let mut start = integers.len() + 3 * forces.len();
        let mut numbers = Vec::new();
        for (kind, tables) in forces {
            integers.extend([*kind as u32, start as u32, numbers.len() as u32]);
            start += tables.integers.len();
            numbers.extend_from_slice(&tables.numbers);
        }
        forces.iter().for_each(|(_, tables)| integers.extend_from_slice(&tables.integers));
        Self { integers, numbers }
    }

    /// The kind of the potential, the number d of coordinates, the numbers of scratch space that one configuration needs,
    /// and then what the kind has.
    pub fn integers(&self) -> &[u32] {
        &self.integers
    }

    /// Parameters, in the units of the potential.
    pub fn numbers(&self) -> &[f64] {
        &self.numbers
    }

    /// The number d of coordinates.
    pub fn dimension(&self) -> usize {
        self.integers.get(DIMENSION).map_or(0, |&d| d as usize)
    }

    /// The numbers of scratch space that one configuration needs.
    pub fn scratch(&self) -> usize {
        self.integers.get(SCRATCH).map_or(0, |&n| n as usize)
    }
}

/// The kinds of forces, as `energy/cuda/mechanics.cuh` numbers them.
#[derive(Clone, Copy, Debug)]
pub(super) enum ForceKind {
    None = 0,
    Bonds = 1,
    Angles = 2,
    Torsions = 3,
    Nonbonded = 4,
    Born = 5,
}

/// What a force is evaluated from.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ForceTables {
    pub integers: Vec<u32>,
    pub numbers: Vec<f64>,
}
