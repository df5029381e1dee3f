//! Structures laid upon one another, and the principal axes of their motion.

use nalgebra::{DMatrix, Matrix3, Matrix4, SymmetricEigen};

/// More steps than the search for four eigenvalues takes; without a limit, it might have no end.
const MOST_STEPS: usize = 200;

/// Vectors whose products are summed at once.
const BLOCK: usize = 512;

/// The rotation R for which Σ |R x_i − c_i|² is least (Horn, J. Opt. Soc. Am. A 4, 629 (1987)): never a reflection. Both are
/// points in three dimensions (3n numbers) about their mean. Where several rotations are equally good (points on a line, or
/// in one place), it is one of them. NaN if a number is not finite.
pub fn superposition(x: &[f64], c: &[f64]) -> Matrix3<f64> {
    let mut s = Matrix3::<f64>::zeros();
    for (x, c) in x.chunks_exact(3).zip(c.chunks_exact(3)) {
        for a in 0..3 {
            for b in 0..3 {
                s[(a, b)] += x[a] * c[b];
            }
        }
    }
    let nothing = Matrix3::from_element(f64::NAN);
    if !s.iter().all(|s| s.is_finite()) {
        return nothing;
    }
    let [xx, xy, xz] = [s[(0, 0)], s[(0, 1)], s[(0, 2)]];
    let [yx, yy, yz] = [s[(1, 0)], s[(1, 1)], s[(1, 2)]];
    let [zx, zy, zz] = [s[(2, 0)], s[(2, 1)], s[(2, 2)]];
    // Quadratic in the rotation's quaternion is how much the points agree; linear in s, it keeps the digits that sᵀs loses
    // where the points are nearly on a line.
    #[rustfmt::skip]
    let agreement = Matrix4::new(
        xx + yy + zz, yz - zy, zx - xz, xy - yx,
        yz - zy, xx - yy - zz, xy + yx, zx + xz,
        zx - xz, xy + yx, yy - xx - zz, yz + zy,
        xy - yx, zx + xz, yz + zy, zz - xx - yy,
    );
    let Some(eigen) = SymmetricEigen::try_new(agreement, f64::EPSILON, MOST_STEPS) else { return nothing };
    let best = eigen.eigenvalues.imax();
    let quaternion = eigen.eigenvectors.column(best).normalize();
    let [w, x, y, z] = [quaternion[0], quaternion[1], quaternion[2], quaternion[3]];
    #[rustfmt::skip]
    let rotation = Matrix3::new(
        w * w + x * x - y * y - z * z, 2.0 * (x * y - w * z), 2.0 * (x * z + w * y),
        2.0 * (x * y + w * z), w * w - x * x + y * y - z * z, 2.0 * (y * z - w * x),
        2.0 * (x * z - w * y), 2.0 * (y * z + w * x), w * w - x * x - y * y + z * z,
    );
    rotation
}

/// The principal axes of a set of vectors about zero, and the mean square along each, largest first, in the space
/// orthogonal to `without` (orthonormal, and with no share in the vectors). None if a mean square is not finite.
pub fn principal_axes(vectors: &[Vec<f64>], without: &[Vec<f64>]) -> Vec<(f64, Vec<f64>)> {
    let Some(d) = vectors.first().map(Vec::len) else { return Vec::new() };
    let mut covariance = DMatrix::<f64>::zeros(d, d);
    for some in vectors.chunks(BLOCK) {
        let block = DMatrix::from_fn(d, some.len(), |k, i| some[i][k]);
        covariance.gemm(1.0 / vectors.len() as f64, &block, &block.transpose(), 1.0);
    }
    // The search for eigenvalues would not end.
    if !covariance.iter().all(|x| x.is_finite()) {
        return Vec::new();
    }
    // No mean square is negative: those that are, are of what is left out.
    let scale = covariance.trace().max(f64::MIN_POSITIVE);
    for axis in without {
        let axis = DMatrix::from_column_slice(d, 1, axis);
        covariance -= &axis * axis.transpose() * scale;
    }
    let eigen = SymmetricEigen::new(covariance);
    let mut axes: Vec<(f64, Vec<f64>)> = eigen
        .eigenvalues
        .iter()
        .zip(eigen.eigenvectors.column_iter())
        .map(|(&value, vector)| (value, vector.iter().copied().collect()))
        .collect();
    axes.sort_by(|a, b| b.0.total_cmp(&a.0));
    axes.truncate(d.saturating_sub(without.len()));
    axes
}
