//! Vectors in three dimensions, and the internal coordinates that they make.

pub(super) type Vector = [f64; 3];

pub(super) fn sub(a: Vector, b: Vector) -> Vector {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

pub(super) fn add_scaled(a: &mut Vector, s: f64, b: Vector) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += s * b);
}

pub(super) fn dot(a: Vector, b: Vector) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

pub(super) fn cross(a: Vector, b: Vector) -> Vector {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

pub(super) fn norm(a: Vector) -> f64 {
    dot(a, a).sqrt()
}

pub(super) fn scaled(a: Vector, s: f64) -> Vector {
    [a[0] * s, a[1] * s, a[2] * s]
}

/// Distance between two points.
pub fn distance(a: [f64; 3], b: [f64; 3]) -> f64 {
    norm(sub(a, b))
}

/// The angle a–b–c in [0, π], in the form of Kahan, which keeps its digits near 0 and π.
pub fn angle(a: [f64; 3], b: [f64; 3], c: [f64; 3]) -> f64 {
    let (u, v) = (sub(a, b), sub(c, b));
    norm(cross(u, v)).atan2(dot(u, v))
}

/// The dihedral a–b–c–d in [−π, π], IUPAC sign: zero when a and d are on the same side of b–c. Collinear points give 0.
pub fn dihedral(a: [f64; 3], b: [f64; 3], c: [f64; 3], d: [f64; 3]) -> f64 {
    let (u, v, w) = (sub(b, a), sub(c, b), sub(d, c));
    let n = cross(v, w);
    (dot(u, n) * norm(v)).atan2(dot(cross(u, v), n))
}
