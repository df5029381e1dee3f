//! Structures laid upon one another, and the principal axes of their motion.

use nalgebra::{DMatrix, Matrix3, SymmetricEigen};

/// More steps than a singular value decomposition of three rows takes; without a limit, numbers that are not finite would
/// keep it busy for ever.
const MOST_STEPS: usize = 200;

/// Vectors whose products are summed at once.
const BLOCK: usize = 512;

/// The rotation R for which Σ |R x_i − c_i|² is least (Kabsch, Acta Cryst. A 32, 922 (1976)): never a reflection. Both are
/// points in three dimensions (3n numbers) about their mean. NaN if a number is not finite.
pub fn superposition(x: &[f64], c: &[f64]) -> Matrix3<f64> {
    let mut covariance = Matrix3::<f64>::zeros();
    for (x, c) in x.chunks_exact(3).zip(c.chunks_exact(3)) {
        for a in 0..3 {
            for b in 0..3 {
                covariance[(a, b)] += x[a] * c[b];
            }
        }
    }
    let decomposed = if covariance.iter().all(|x| x.is_finite()) {
        covariance.try_svd(true, true, f64::EPSILON, MOST_STEPS)
    } else {
        None
    };
    match decomposed.and_then(|svd| svd.u.zip(svd.v_t)) {
        Some((u, v_t)) => {
            // The singular values come in descending order: the last axis is turned round at the least cost.
            let hand = (u.determinant() * v_t.determinant()).signum();
            v_t.transpose() * Matrix3::from_diagonal(&[1.0, 1.0, hand].into()) * u.transpose()
        }
        None => Matrix3::from_element(f64::NAN),
    }
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
