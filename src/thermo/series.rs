//! How many of a trajectory's frames are as good as independent.

use crate::simulate::effective_samples;

/// Numbers that are correlated with one another, at most: of a longer series neighbours are averaged first.
const MOST: usize = 1 << 14;

/// Averages that are left when neighbours are averaged for the last time.
const FEWEST: usize = 64;

/// Longer blocks count if their means vary by so many standard errors more than those of independent numbers.
const SIGNIFICANT: f64 = 4.0;

/// The statistical inefficiency 1 + 2·Σρ(t) of a series: how many of its numbers are worth an independent one (Chodera et al.,
/// J. Chem. Theory Comput. 3, 26 (2007)); 1 for a series that never changes. Numbers may be infinite: it is that of a bounded series
/// which goes up and down with them.
///
/// Frames of several walkers may follow one another, so that neighbours are independent and those one round apart are not: the
/// sum over lags would end before it has begun. Means of longer and longer blocks show such correlations by their variance, and
/// where that is more than noise, the sum over lags is that of the means.
pub fn statistical_inefficiency(series: &[f64]) -> f64 {
    let series = &bounded(series)[..];
    let n = series.len() as f64;
    let variance = variance(series);
    if series.len() < 4 || variance <= 0.0 {
        return 1.0;
    }
    let mut block = series.len().div_ceil(MOST).max(1);
    let (mut largest, mut first) = (1.0f64, true);
    loop {
        let means: Vec<f64> =
            series.chunks_exact(block).map(|block| block.iter().sum::<f64>() / block.len() as f64).collect();
        let blocks = means.len() as f64;
        let spread = self::variance(&means);
        if spread > 0.0 {
            // Of independent numbers, the variance of so many means is known to this part of it.
            let of_block = block as f64 * spread / variance;
            let noise = SIGNIFICANT * (2.0 / blocks).sqrt();
            if first || of_block > largest * (1.0 + noise) {
                let between = blocks / effective_samples(std::slice::from_ref(&means));
                largest = largest.max(of_block * between);
            }
        }
        first = false;
        if means.len() < 2 * FEWEST {
            return largest.min(n);
        }
        block *= 2;
    }
}

/// (x − m)/(s + |x − m|) of numbers x, with their median m and their typical distance s from it.
fn bounded(series: &[f64]) -> Vec<f64> {
    let centre = median(series.to_vec());
    if !centre.is_finite() {
        return series.iter().map(|x| f64::from(u8::from(*x > centre)) - f64::from(u8::from(*x < centre))).collect();
    }
    let spread = median(series.iter().map(|x| (x - centre).abs()).collect());
    let scale = if spread > 0.0 && spread.is_finite() { spread } else { 1.0 };
    let squeeze = |x: &f64| {
        let away = x - centre;
        if away.is_infinite() { away.signum() } else { away / (scale + away.abs()) }
    };
    series.iter().map(squeeze).collect()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(0.0)
}

fn variance(numbers: &[f64]) -> f64 {
    let n = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / n;
    numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::{Purpose, Randoms};

    fn autoregression(seed: u64, a: f64, n: usize) -> Vec<f64> {
        let mut random = Randoms::new(seed, Purpose::Validation, 0);
        let mut x = random.normal();
        (0..n)
            .map(|_| {
                x = a * x + (1.0 - a * a).sqrt() * random.normal();
                x
            })
            .collect()
    }

    /// First-order autoregression: g = (1 + a)/(1 − a), alone and with eight walkers frame by frame. The estimate's spread is
    /// about (2(2g + 1)/n)^½ = 6 % here; the bound is a third. Independent numbers are worth themselves.
    #[test]
    fn correlation_is_found_in_one_chain_and_between_walkers() {
        let (a, n) = (0.9, 24_000);
        let expected = (1.0 + a) / (1.0 - a);
        let alone = statistical_inefficiency(&autoregression(1, a, n));
        assert!((alone / expected - 1.0).abs() < 0.33, "{alone} of {expected}");
        let walkers: Vec<Vec<f64>> = (0..8).map(|w| autoregression(10 + w, a, n / 8)).collect();
        let woven: Vec<f64> = (0..n).map(|i| walkers[i % 8][i / 8]).collect();
        let together = statistical_inefficiency(&woven);
        assert!((together / expected - 1.0).abs() < 0.5, "{together} of {expected}");
        // Noise is not taken for correlation: 100 seeds.
        for seed in 0..100 {
            let independent = statistical_inefficiency(&autoregression(100 + seed, 0.0, 5_000));
            assert!((1.0..1.4).contains(&independent), "{independent}");
        }
        assert_eq!((statistical_inefficiency(&[3.0; 50]), statistical_inefficiency(&[])), (1.0, 1.0));
    }

    #[test]
    fn infinite_numbers_have_a_place() {
        let x = [1.0, f64::INFINITY, 2.0, f64::NEG_INFINITY, 3.0];
        let squeezed = bounded(&x);
        assert_eq!((squeezed[1], squeezed[3], squeezed[2]), (1.0, -1.0, 0.0));
        assert!(squeezed[0] < 0.0 && squeezed[4] > 0.0);
        assert_eq!(bounded(&[f64::INFINITY, f64::INFINITY, 1.0]), [0.0, 0.0, -1.0]);
    }
}
