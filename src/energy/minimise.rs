//! Energy minimisation by FIRE (Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006)).

use super::potential::{EnergyError, Potential};

/// Steps for small systems; larger ones have fewer, so that the work has a bound.
const MAX_STEPS: usize = 20_000;

/// Steps × coordinates².
const MAX_WORK: usize = 40_000_000_000;
const MAX_MOVE: f64 = 0.01;

/// Moves a configuration downhill until no component of the gradient exceeds `tolerance` (energy unit per length unit),
/// or the steps run out: then it is lower than it was, which is enough to centre and scale coordinates.
pub fn minimise(potential: &dyn Potential, x: &mut [f64], tolerance: f64) -> Result<(), EnergyError> {
    let mut energy = [0.0];
    let mut gradient = vec![0.0; x.len()];
    let mut velocity = vec![0.0; x.len()];
    let (mut dt, mut alpha, mut downhill) = (1e-3, 0.1, 0);
    let work = x.len().saturating_mul(x.len()).max(1);
    for _ in 0..MAX_STEPS.min(MAX_WORK / work).max(100) {
        potential.evaluate(x, &mut energy, Some(&mut gradient))?;
        if !energy[0].is_finite() || gradient.iter().any(|g| !g.is_finite()) {
            return Err(EnergyError::Definition(
                "the starting structure has an infinite energy or force; are its coordinates in the right unit?".into(),
            ));
        }
        if gradient.iter().all(|g| g.abs() <= tolerance) {
            break;
        }
        let power: f64 = -gradient.iter().zip(&velocity).map(|(g, v)| g * v).sum::<f64>();
        let length = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
        let ratio = length(&velocity) / length(&gradient);
        if power > 0.0 {
            velocity.iter_mut().zip(&gradient).for_each(|(v, g)| *v = (1.0 - alpha) * *v - alpha * ratio * g);
            downhill += 1;
            if downhill > 5 {
                dt = f64::min(dt * 1.1, 1e-2);
                alpha *= 0.99;
            }
        } else {
            velocity.fill(0.0);
            (dt, alpha, downhill) = (dt * 0.5, 0.1, 0);
        }
        velocity.iter_mut().zip(&gradient).for_each(|(v, g)| *v -= dt * g);
        let step = dt * velocity.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let shorten = if step > MAX_MOVE { MAX_MOVE / step } else { 1.0 };
        x.iter_mut().zip(&velocity).for_each(|(x, v)| *x += shorten * dt * v);
    }
    Ok(())
}
