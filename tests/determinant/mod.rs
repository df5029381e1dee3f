//! The determinants that log-determinants of Jacobians are compared with.

/// log |det| by LU decomposition with partial pivoting.
pub fn log_abs_det(mut m: Vec<Vec<f64>>) -> f64 {
    let d = m.len();
    let mut log = 0.0;
    for k in 0..d {
        let pivot = (k..d).max_by(|&a, &b| m[a][k].abs().total_cmp(&m[b][k].abs())).unwrap();
        m.swap(k, pivot);
        log += m[k][k].abs().ln();
        let (above, below) = m.split_at_mut(k + 1);
        let top = &above[k];
        for row in below {
            let factor = row[k] / top[k];
            row.iter_mut().zip(top).for_each(|(x, t)| *x -= factor * t);
        }
    }
    log
}
