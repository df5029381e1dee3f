//! Latents that are drawn wider than a flow's prior: they lead to places that the flow makes too little of.
//!
//! A defensive mixture (Hesterberg, Technometrics 37, 185 (1995)) of the flow's d Gaussian latents, in which a share s of them
//! is drawn wider,
//!
//! h(z) = q_wide/q = ½·Σ_s Π_k [1 − s + s·g(z_k)],   g(z) = ½·Σ_a exp(½·z²/τ·(1 − 1/a²))/a,
//!
//! with s = 1/d and 1/√d, a = 1.5 and 2.5. h is nowhere small: what the flow makes, the mixture makes. Uniform latents, of
//! angles, stay as they are.

use crate::flow::{Prior, PriorComponent};
use crate::math::Randoms;

/// The widths of wide latents, in standard deviations of the prior.
const WIDTHS: [f64; 2] = [1.5, 2.5];

/// The mixture.
pub struct WideLatents<'a> {
    prior: &'a Prior,
    shares: [f64; 2],
}

impl<'a> WideLatents<'a> {
    /// Nothing without Gaussian latents.
    pub fn of(prior: &'a Prior) -> Option<Self> {
        let gaussian = prior.components().iter().filter(|c| **c == PriorComponent::Gaussian).count();
        let d = gaussian as f64;
        (gaussian > 0).then(|| Self { prior, shares: [1.0 / d, 1.0 / d.sqrt()] })
    }

    /// Draws a row of latents at latent temperature τ.
    pub fn draw(&self, tau: f64, random: &mut Randoms, latents: &mut [f64]) {
        let share = if random.uniform() < 0.5 { self.shares[0] } else { self.shares[1] };
        for (component, z) in self.prior.components().iter().zip(latents) {
            *z = match component {
                PriorComponent::Gaussian => {
                    let is_wide = random.uniform() < share;
                    let width = if random.uniform() < 0.5 { WIDTHS[0] } else { WIDTHS[1] };
                    random.normal() * if is_wide { width } else { 1.0 } * tau.sqrt()
                }
                PriorComponent::Uniform { low, high } => low + (high - low) * random.uniform(),
            };
        }
    }

    /// log h of a row of latents.
    pub fn log_excess(&self, tau: f64, latents: &[f64]) -> f64 {
        let mut log_products = [0.0; 2];
        for (component, z) in self.prior.components().iter().zip(latents) {
            if *component == PriorComponent::Gaussian {
                let of_width = |a: f64| libm::exp(0.5 * z * z / tau * (1.0 - 1.0 / (a * a))) / a;
                let g = 0.5 * (of_width(WIDTHS[0]) + of_width(WIDTHS[1]));
                for (log_product, share) in log_products.iter_mut().zip(self.shares) {
                    *log_product += libm::log(1.0 - share + share * g);
                }
            }
        }
        let [a, b] = log_products;
        libm::log(0.5) + a.max(b) + libm::log1p(libm::exp(-(a - b).abs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::Purpose;

    /// Of a normal prior with a uniform component ⟨1/h⟩ over the mixture is 1, and ⟨z²/h⟩ the variance, at any latent temperature.
    /// Bounds are 4.5 standard errors of 50,000 draws: 1/h is below 4.
    #[test]
    fn draws_are_of_the_mixture() {
        let uniform = PriorComponent::Uniform { low: -1.0, high: 3.0 };
        let prior = Prior::product(vec![PriorComponent::Gaussian, uniform, PriorComponent::Gaussian]);
        let wide = WideLatents::of(&prior).unwrap();
        let tau = 0.6;
        let n = 50_000;
        for k in [0, 2] {
            let (mut sums, mut squares) = ([0.0; 2], [0.0; 2]);
            for index in 0..n {
                let mut z = [0.0; 3];
                wide.draw(tau, &mut Randoms::new(5, Purpose::Validation, index), &mut z);
                let ratio = (-wide.log_excess(tau, &z)).exp();
                assert!(ratio < 4.0 && (-1.0..3.0).contains(&z[1]));
                for (i, x) in [ratio, ratio * z[k] * z[k] / tau].into_iter().enumerate() {
                    sums[i] += x / n as f64;
                    squares[i] += x * x / n as f64;
                }
            }
            for (mean, square) in sums.into_iter().zip(squares) {
                let error = ((square - mean * mean) / n as f64).sqrt();
                assert!((mean - 1.0).abs() < 4.5 * error, "{k}: {mean} ± {error}");
            }
        }
        assert!(WideLatents::of(&Prior::uniform(2, 0.0, 1.0)).is_none());
    }
}
