//! Small dense systems of linear equations.

/// The solution X (n, m) of A·X = B for A (n, n) and B (n, m), row by row, by elimination with partial pivoting; nothing
/// if A is singular to working precision or holds a number that is not finite.
pub fn solve_linear(mut a: Vec<f64>, mut b: Vec<f64>, n: usize) -> Option<Vec<f64>> {
    if n == 0 || a.len() != n * n || !b.len().is_multiple_of(n) {
        return None;
    }
    let m = b.len() / n;
    let largest = a.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    for column in 0..n {
        let pivot = (column..n).max_by(|&i, &j| a[i * n + column].abs().total_cmp(&a[j * n + column].abs()))?;
        let size = a[pivot * n + column].abs();
        // A NaN is no pivot either.
        let usable = size.is_finite() && size > f64::EPSILON * largest;
        if !usable {
            return None;
        }
        if pivot != column {
            (0..n).for_each(|j| a.swap(pivot * n + j, column * n + j));
            (0..m).for_each(|j| b.swap(pivot * m + j, column * m + j));
        }
        let (upper, lower) = a.split_at_mut((column + 1) * n);
        let (upper_b, lower_b) = b.split_at_mut((column + 1) * m);
        let (row, row_b) = (&upper[column * n..], &upper_b[column * m..]);
        for (other, other_b) in lower.chunks_exact_mut(n).zip(lower_b.chunks_exact_mut(m.max(1))) {
            let factor = other[column] / row[column];
            other[column..].iter_mut().zip(&row[column..]).for_each(|(o, r)| *o -= factor * r);
            other_b.iter_mut().zip(row_b).for_each(|(o, r)| *o -= factor * r);
        }
    }
    for i in (0..n).rev() {
        for j in 0..m {
            let known: f64 = (i + 1..n).map(|k| a[i * n + k] * b[k * m + j]).sum();
            b[i * m + j] = (b[i * m + j] - known) / a[i * n + i];
        }
    }
    Some(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::{Purpose, Randoms};

    #[test]
    fn solutions_solve_and_singular_matrices_are_found() {
        let (n, m) = (7, 3);
        let mut random = Randoms::new(1, Purpose::Validation, 0);
        let a: Vec<f64> = (0..n * n).map(|_| random.normal()).collect();
        let x: Vec<f64> = (0..n * m).map(|_| random.normal()).collect();
        let product = |i: usize, j: usize| (0..n).map(|k| a[i * n + k] * x[k * m + j]).sum::<f64>();
        let b = (0..n * m).map(|e| product(e / m, e % m)).collect();
        let solved = solve_linear(a.clone(), b, n).unwrap();
        assert!(solved.iter().zip(&x).all(|(s, x)| (s - x).abs() < 1e-11));

        // A zero on the diagonal is not the end; two equal rows are, and so is a NaN.
        assert_eq!(solve_linear(vec![0.0, 2.0, 4.0, 0.0], vec![2.0, 8.0], 2), Some(vec![2.0, 1.0]));
        assert_eq!(solve_linear(vec![1.0, 2.0, 1.0, 2.0], vec![1.0, 1.0], 2), None);
        assert_eq!(solve_linear(vec![1.0, f64::NAN, 0.0, 2.0], vec![1.0, 1.0], 2), None);
        assert_eq!(solve_linear(Vec::new(), Vec::new(), 0), None);
    }
}
