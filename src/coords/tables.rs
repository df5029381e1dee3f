//! A coordinate transform as flat arrays of numbers, in the layout that `coords/cuda/coordinates.cuh` reads.

/// What a coordinate transform is computed from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TransformTables {
    /// The kind of the transform, the numbers d of coordinates and D of positions; for internal coordinates also the frame,
    /// the rows of the Z-matrix, and what each coordinate measures.
    pub integers: Vec<u32>,
    /// The constant part of ladj, then centre, scale, and the middle and reach of its domain, of each coordinate.
    pub numbers: Vec<f64>,
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
}
