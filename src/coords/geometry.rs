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

/// The derivatives of [`distance`] with respect to each point; not finite where they coincide.
pub fn distance_gradient([a, b]: [[f64; 3]; 2]) -> [[f64; 3]; 2] {
    let u = sub(a, b);
    let u = scaled(u, 1.0 / norm(u));
    [u, scaled(u, -1.0)]
}

/// The derivatives of [`angle`] with respect to each point; not finite where the points lie on a line.
pub fn angle_gradient([a, b, c]: [[f64; 3]; 3]) -> [[f64; 3]; 3] {
    let (u, v) = (sub(a, b), sub(c, b));
    let n = cross(u, v);
    let sine = norm(n);
    let of_a = scaled(cross(u, n), 1.0 / (dot(u, u) * sine));
    let of_c = scaled(cross(n, v), 1.0 / (dot(v, v) * sine));
    [of_a, scaled([of_a[0] + of_c[0], of_a[1] + of_c[1], of_a[2] + of_c[2]], -1.0), of_c]
}

/// The derivatives of [`dihedral`] with respect to each point (Blondel and Karplus 1996); not finite where three points that
/// follow one another lie on a line.
pub fn dihedral_gradient([a, b, c, d]: [[f64; 3]; 4]) -> [[f64; 3]; 4] {
    let (u, v, w) = (sub(b, a), sub(c, b), sub(d, c));
    let (m, n) = (cross(u, v), cross(v, w));
    let length = norm(v);
    let of_a = scaled(m, -length / dot(m, m));
    let of_d = scaled(n, length / dot(n, n));
    let (along_u, along_w) = (dot(u, v) / dot(v, v), dot(w, v) / dot(v, v));
    let mut of_b = scaled(of_a, -1.0 - along_u);
    add_scaled(&mut of_b, along_w, of_d);
    let mut of_c = scaled(of_a, along_u);
    add_scaled(&mut of_c, -1.0 - along_w, of_d);
    [of_a, of_b, of_c, of_d]
}
