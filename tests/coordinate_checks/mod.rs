//! What every transform of a molecule's coordinates must do.

#[path = "../determinant/mod.rs"]
mod determinant;

use boltzflow::coords::{CoordinateKind, CoordinateTransform, ReducedTarget};
use boltzflow::energy::System;
use boltzflow::math::{Purpose, Randoms};
use std::f64::consts::PI;
use std::sync::Arc;

/// Flow coordinates at a distance of about `spread` from those of a configuration.
pub fn perturbed(transform: &dyn CoordinateTransform, x: &[f64], spread: f64, seed: u64) -> Vec<f64> {
    let mut y = vec![0.0; transform.kinds().len()];
    transform.to_coordinates(x, &mut y);
    let mut random = Randoms::new(seed, Purpose::Validation, 0);
    y.iter_mut().for_each(|y| *y += spread * random.normal());
    y
}

/// y comes back from where it is placed, moved and turned, with the same log-determinant; that, and what came back.
pub fn check_round_trip(transform: &dyn CoordinateTransform, y: &[f64]) -> (f64, Vec<f64>) {
    let (mut placed, mut back) = (vec![0.0; transform.position_dimension()], vec![0.0; y.len()]);
    let ladj = transform.to_positions(y, &mut placed);
    let turned: Vec<f64> = placed.chunks_exact(3).flat_map(|p| [p[1] + 0.3, -p[0], p[2] - 1.0]).collect();
    let ladj_back = transform.to_coordinates(&turned, &mut back);
    assert!((ladj - ladj_back).abs() < 1e-9, "{ladj} and {ladj_back}");
    for ((y, back), kind) in y.iter().zip(&back).zip(transform.kinds()) {
        let gap = (y - back).abs();
        let gap = if *kind == CoordinateKind::Circular { gap.min((gap - 2.0 * PI).abs()) } else { gap };
        assert!(gap < 1e-7, "{y} came back as {back}");
    }
    (ladj, back)
}

/// log |det| of the Jacobian of y → x, which has 3N − 6 columns, beside six columns of rigid motions: three translations, and
/// three rotations about the origin.
pub fn log_volume(transform: &dyn CoordinateTransform, y: &[f64]) -> f64 {
    let d = transform.position_dimension();
    let at = |y: &[f64]| {
        let mut x = vec![0.0; d];
        transform.to_positions(y, &mut x);
        x
    };
    let placed = at(y);
    let h = 1e-5;
    let mut columns: Vec<Vec<f64>> = (0..d - 6)
        .map(|k| {
            let moved = |delta: f64| {
                let mut y = y.to_vec();
                y[k] += delta;
                at(&y)
            };
            moved(h).iter().zip(moved(-h)).map(|(a, b)| (a - b) / (2.0 * h)).collect()
        })
        .collect();
    for w in [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]] {
        columns.push(placed.chunks_exact(3).flat_map(|_| w).collect());
        let turned = |p: &[f64]| [w[1] * p[2] - w[2] * p[1], w[2] * p[0] - w[0] * p[2], w[0] * p[1] - w[1] * p[0]];
        columns.push(placed.chunks_exact(3).flat_map(turned).collect());
    }
    determinant::log_abs_det(columns)
}

/// The gradient of u − ladj at 300 K is that of finite differences.
pub fn check_gradient(system: &System, transform: &Arc<dyn CoordinateTransform>, y: &[f64]) {
    let kt = system.scale().kt(300.0);
    let target = ReducedTarget::new(system.clone(), Arc::clone(transform));
    let gradient = target.evaluate_with_gradient(y, |_| 300.0, |_| 1.0).unwrap().gradients;
    for k in 0..y.len() {
        let at = |delta: f64| {
            let mut y = y.to_vec();
            y[k] += delta;
            let batch = target.evaluate(&y).unwrap();
            batch.energies[0] / kt - batch.ladj[0]
        };
        let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
        let tolerance = 2e-5 * (1.0 + numeric.abs());
        assert!((numeric - gradient[k]).abs() < tolerance, "{k}: {} against {numeric}", gradient[k]);
    }
}
