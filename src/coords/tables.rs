//! A coordinate transform as flat arrays of numbers, in the layout that `coords/cuda/coordinates.cuh` reads.

/// What a coordinate transform is computed from. Only the transforms of this module make any, so that no index in them is
/// out of range.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TransformTables {
    pub(super) integers: Vec<u32>,
    pub(super) numbers: Vec<f64>,
}

impl TransformTables {
    /// The kind of the transform, the numbers d of coordinates and D of positions; for internal coordinates also the frame,
    /// the rows of the Z-matrix, and what each coordinate measures and which of the flow's it is.
    pub fn integers(&self) -> &[u32] {
        &self.integers
    }

    /// The constant part of ladj, then centre, scale, and the middle and reach of its domain, of each coordinate.
    pub fn numbers(&self) -> &[f64] {
        &self.numbers
    }

    /// The number d of coordinates.
    pub fn dimension(&self) -> usize {
        self.integers.get(1).map_or(0, |&d| d as usize)
    }

    /// The number D of positions.
    pub fn position_dimension(&self) -> usize {
        self.integers.get(2).map_or(0, |&d| d as usize)
    }
}

/// The kinds of transforms.
#[derive(Clone, Copy, Debug)]
pub(super) enum TransformKind {
    Cartesian = 0,
    Internal = 1,
}

/// What a coordinate measures, which says where its domain ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Measure {
    Bond = 0,
    Angle = 1,
    CircularTorsion = 2,
    RealTorsion = 3,
    Fixed = 4,
}
