//! Kernel densities: a Gaussian, wrapped where the variable is periodic, about each weighted sample.
//!
//! Samples are counted in the cells of a fine grid, and the grid is convolved with the kernel: so memory does not grow with
//! the number of samples, and the grids of blocks of samples give bootstrap errors as those of a histogram do. A cell is at
//! most half a bandwidth wide, and what it adds to the variance of the kernel is taken off it. The grid of a variable that is
//! not periodic goes beyond the profile's range, since kernels about samples outside reach inside.

use super::profile::ProfileAxis;
use crate::math::LogSumExp;

/// Cells of the grid.
pub const CELLS: usize = 1024;

/// How far the grid goes beyond a range on either side, as a part of it.
const MARGIN: f64 = 0.25;

/// Where the kernel ends, in standard deviations: far from all samples there is no density to speak of, and no barrier of
/// hundreds of kT. The margin, and the circle, have room for as much of the largest bandwidth.
const REACH: f64 = 5.0;

/// The least bandwidth in cells.
const LEAST_CELLS: f64 = 2.0;

/// Images of a wrapped kernel on either side: the next one is more than a period away.
const IMAGES: i32 = 1;

/// A kernel density that is asked for: the standard deviation of its kernel, or none for the rule's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KernelDensity {
    pub bandwidth: Option<f64>,
}

/// Where a bandwidth comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BandwidthRule {
    /// It was asked for.
    Given,
    /// Silverman's rule of thumb with the effective number of samples.
    Silverman,
    /// The same, brought to the nearest bandwidth that the grid can show.
    LimitedSilverman,
}

/// The grid of a profile.
#[derive(Clone, Debug)]
pub(super) struct Grid {
    low: f64,
    cell: f64,
    period: Option<f64>,
}

/// The samples on a grid, for the number of those that are effective.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OnGrid {
    weights: LogSumExp,
    squares: LogSumExp,
}

impl OnGrid {
    pub fn add(&mut self, log_weight: f64) {
        self.weights.add(log_weight);
        self.squares.add(2.0 * log_weight);
    }

    /// (Σw)²/Σw².
    fn effective(&self) -> f64 {
        (2.0 * self.weights.value() - self.squares.value()).exp()
    }
}

impl ProfileAxis {
    /// The least and the largest bandwidth of a kernel density over this range.
    pub fn bandwidths(&self) -> (f64, f64) {
        let grid = Grid::new(self);
        (LEAST_CELLS * grid.cell, grid.most())
    }
}

impl Grid {
    pub fn new(axis: &ProfileAxis) -> Self {
        let period = axis.variable.description().period();
        let margin = MARGIN * (axis.high - axis.low);
        let (low, length) = match period {
            Some(period) => (axis.low, period),
            None => (axis.low - margin, axis.high - axis.low + 2.0 * margin),
        };
        Self { low, cell: length / CELLS as f64, period }
    }

    fn most(&self) -> f64 {
        let length = self.cell * CELLS as f64;
        match self.period {
            Some(period) => period / REACH,
            None => length * MARGIN / (1.0 + 2.0 * MARGIN) / REACH,
        }
    }

    /// The cell that a value is in.
    pub fn cell(&self, value: f64) -> Option<usize> {
        let from_low = match self.period {
            Some(period) => (value - self.low).rem_euclid(period),
            None => value - self.low,
        };
        let cell = from_low / self.cell;
        let last = CELLS - 1;
        match self.period {
            // A remainder may be rounded up to the period itself.
            Some(_) => cell.is_finite().then_some((cell as usize).min(last)),
            None => (0.0..CELLS as f64).contains(&cell).then_some((cell as usize).min(last)),
        }
    }

    fn centre(&self, cell: usize) -> f64 {
        self.low + (cell as f64 + 0.5) * self.cell
    }

    /// The bandwidth for sums of weights in cells, and where it comes from. NaN where nothing is in any cell.
    pub fn bandwidth(&self, asked: KernelDensity, sums: &[f64], samples: &OnGrid) -> (f64, BandwidthRule) {
        if let Some(bandwidth) = asked.bandwidth {
            return (bandwidth, BandwidthRule::Given);
        }
        let total: f64 = sums.iter().sum();
        if total.is_nan() || total <= 0.0 {
            return (f64::NAN, BandwidthRule::Silverman);
        }
        let spread = match self.period {
            Some(period) => self.circular_deviation(sums, total, period),
            None => self.deviation(sums, total).min(self.middle_half(sums, total) / 1.349),
        };
        let by_rule = 0.9 * spread * samples.effective().powf(-0.2);
        let bandwidth = by_rule.clamp(LEAST_CELLS * self.cell, self.most());
        let rule = if bandwidth == by_rule { BandwidthRule::Silverman } else { BandwidthRule::LimitedSilverman };
        (bandwidth, rule)
    }

    fn deviation(&self, sums: &[f64], total: f64) -> f64 {
        let moment =
            |of: &dyn Fn(f64) -> f64| sums.iter().enumerate().map(|(k, s)| s * of(self.centre(k))).sum::<f64>() / total;
        let mean = moment(&|x| x);
        moment(&|x| (x - mean).powi(2)).sqrt()
    }

    /// The standard deviation of the wrapped normal distribution with the same mean resultant length; at most that of the
    /// uniform distribution.
    fn circular_deviation(&self, sums: &[f64], total: f64, period: f64) -> f64 {
        let turn = 2.0 * std::f64::consts::PI / period;
        let (mut sine, mut cosine) = (0.0, 0.0);
        for (k, s) in sums.iter().enumerate() {
            let angle = turn * self.centre(k);
            sine += s * angle.sin();
            cosine += s * angle.cos();
        }
        let length = (sine.hypot(cosine) / total).min(1.0);
        ((-2.0 * length.ln()).sqrt() / turn).min(period / 12f64.sqrt())
    }

    /// The length of the middle half, from quartile to quartile.
    fn middle_half(&self, sums: &[f64], total: f64) -> f64 {
        let quantile = |q: f64| {
            let mut left = q * total;
            for (k, &s) in sums.iter().enumerate() {
                if s > 0.0 && left <= s {
                    return k as f64 + left / s;
                }
                left -= s;
            }
            CELLS as f64
        };
        (quantile(0.75) - quantile(0.25)) * self.cell
    }

    /// What a weight in each cell adds to the density at each place: a row of [`CELLS`] numbers a place.
    pub fn kernel(&self, places: impl Iterator<Item = f64>, bandwidth: f64) -> Vec<f64> {
        // Weights spread over a cell widen the kernel by a twelfth of its square.
        let variance = bandwidth * bandwidth - self.cell * self.cell / 12.0;
        let gauss = |apart: f64| {
            if apart.abs() > REACH * bandwidth { 0.0 } else { (-0.5 * apart * apart / variance).exp() }
        };
        let of_pair = |place: f64, cell: usize| {
            let apart = place - self.centre(cell);
            match self.period {
                None => gauss(apart),
                Some(period) => {
                    let apart = apart - period * (apart / period).round();
                    (-IMAGES..=IMAGES).map(|image| gauss(apart + period * f64::from(image))).sum()
                }
            }
        };
        places.flat_map(|place| (0..CELLS).map(move |cell| (place, cell))).map(|(p, c)| of_pair(p, c)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::collective_variable::CollectiveVariable;
    use super::super::free_energy::{FreeEnergyAccumulator, FreeEnergyQuery, FreeEnergyReport};
    use super::super::profile::ProfileQuery;
    use super::*;
    use crate::energy::analytic::AnalyticPotential;
    use crate::energy::{System, SystemDefinition};
    use crate::math::{Purpose, Randoms};

    const SAMPLES: u64 = 60_000;

    /// The double well's energy along x; along y it is harmonic.
    fn u(x: f64) -> f64 {
        x.powi(4) - 6.0 * x * x + x
    }

    /// ∫ p(x)·f(x) dx of the double well.
    fn mean(f: impl Fn(f64) -> f64) -> f64 {
        let n = 6000;
        let nodes = (0..=n).map(|i| -3.0 + 6.0 * f64::from(i) / f64::from(n));
        let (sum, norm) = nodes.fold((0.0, 0.0), |(s, z), x| {
            let p = (-u(x)).exp();
            (s + p * f(x), z + p)
        });
        sum / norm
    }

    fn axis(text: &str, low: f64, high: f64, bins: usize) -> ProfileAxis {
        let potential = AnalyticPotential::built_in("double-well").unwrap();
        let system = System::build(SystemDefinition::Analytic(potential)).unwrap();
        let variable = text.parse::<CollectiveVariable>().unwrap().bind(&system).unwrap();
        ProfileAxis { variable, low, high, bins }
    }

    fn one(first: ProfileAxis, kernel: Option<Option<f64>>) -> ProfileQuery {
        ProfileQuery { first, second: None, kernel: kernel.map(|bandwidth| KernelDensity { bandwidth }) }
    }

    /// x is uniform in [−3, 3) and weighted, y normal.
    fn report(profiles: Vec<ProfileQuery>) -> FreeEnergyReport {
        let query = FreeEnergyQuery { profiles, ..FreeEnergyQuery::default() };
        let mut sums = FreeEnergyAccumulator::new(query, 1.0, 1);
        for i in 0..SAMPLES {
            let mut random = Randoms::new(77, Purpose::Validation, i);
            let (x, y) = (6.0 * random.uniform() - 3.0, random.normal());
            sums.add(&[-u(x)], &[u(x) + 0.5 * y * y], &[x, y]);
        }
        sums.report(100, 3)
    }

    /// Within five standard errors of −log of the exact density, where that is below `most` kT. The errors are nearly normal:
    /// the false alarms of a hundred bins are 6e-5.
    fn agrees(estimates: &[super::super::Estimate], exact: &[f64], most: f64) {
        let fullest = estimates.iter().position(|e| e.value == 0.0).unwrap();
        let highest = exact.iter().copied().fold(0.0, f64::max);
        let mut compared = 0;
        for (k, (e, density)) in estimates.iter().zip(exact).enumerate() {
            if (highest / density).ln() < most {
                let gap = (e.value - (exact[fullest] / density).ln()).abs();
                assert!(gap <= 5.0 * e.standard_error + 2e-3, "bin {k}: off by {gap}, error {}", e.standard_error);
                assert!(e.standard_error < 0.3);
                compared += 1;
            }
        }
        assert!(compared > 8, "{compared}");
    }

    /// What a kernel density is expected to be is the exact density convolved with the kernel, on the line and on a circle,
    /// with samples beyond the range that reach into it.
    #[test]
    fn kernel_densities_are_convolutions_of_the_exact_one() {
        let (h, period) = (0.12, 2.0);
        let wrapped = format!("expression(x;x=coordinate(0);period={period})");
        let report = report(vec![
            one(axis("coordinate(0)", -2.4, -1.2, 30), Some(Some(0.02))),
            one(axis("coordinate(0)", -3.0, 3.0, 50), Some(Some(h))),
            one(axis(&wrapped, 0.5, 2.5, 40), Some(Some(h))),
        ]);
        let gauss = |apart: f64, h: f64| (-0.5 * (apart / h).powi(2)).exp();
        let centres = |low: f64, high: f64, bins: u32| {
            (0..bins).map(move |k| low + (f64::from(k) + 0.5) * (high - low) / f64::from(bins))
        };
        let line = |low, high, bins, h: f64| -> Vec<f64> {
            centres(low, high, bins).map(|c| mean(|x| gauss(c - x, h))).collect()
        };
        let circle = |c: f64| mean(|x| (-4..=4).map(|k| gauss(c - x + f64::from(k) * period, h)).sum());
        let of = |k: usize| report.profiles[k].kernel.as_ref().unwrap();
        agrees(&of(0).free_energy, &line(-2.4, -1.2, 30, 0.02), 5.0);
        agrees(&of(1).free_energy, &line(-3.0, 3.0, 50, h), 5.0);
        agrees(&of(2).free_energy, &centres(0.5, 2.5, 40).map(circle).collect::<Vec<_>>(), 5.0);
        assert_eq!((of(0).bandwidth, of(0).rule), (0.02, BandwidthRule::Given));
        // What is outside of the range is told, and on the whole circle there is nothing outside.
        let inside = mean(|x| f64::from(u8::from((-2.4..-1.2).contains(&x))));
        assert!((report.profiles[0].covered - inside).abs() < 0.01 && inside < 0.97);
        assert!((report.profiles[2].covered - 1.0).abs() < 1e-12);
        let turned = |c: f64| mean(|x| f64::from(u8::from((x - c + 0.025).rem_euclid(period) < 0.05)));
        agrees(&report.profiles[2].free_energy, &centres(0.5, 2.5, 40).map(turned).collect::<Vec<_>>(), 5.0);
    }

    /// The exact probabilities of bins in x and x/2 + y; and summed over the second, the profile in the first.
    #[test]
    fn profiles_of_two_variables_are_the_exact_ones() {
        let (x, s) = (axis("coordinate(0)", -3.0, 3.0, 24), axis("linear(0.5,1)", -9.0, 9.0, 36));
        let both = ProfileQuery { first: x.clone(), second: Some(s), kernel: None };
        let report = report(vec![both, one(x, None)]);
        let below = |s: f64| 0.5 * libm::erfc(-s / 2f64.sqrt());
        let probability = |i: usize, j: usize| {
            let (low, s) = (-3.0 + 0.25 * i as f64, -9.0 + 0.5 * j as f64);
            mean(|x| {
                let inside = f64::from(u8::from((low..low + 0.25).contains(&x)));
                inside * (below(s + 0.5 - 0.5 * x) - below(s - 0.5 * x))
            })
        };
        let exact: Vec<f64> = (0..24 * 36).map(|k| probability(k / 36, k % 36)).collect();
        let [two, one] = &report.profiles[..] else { panic!() };
        assert_eq!((two.edges.len(), two.second_edges.len(), two.free_energy.len()), (25, 37, 864));
        agrees(&two.free_energy, &exact, 2.0);
        assert!((two.covered - 1.0).abs() < 1e-9);
        let rows: Vec<f64> = two.free_energy.chunks(36).map(|row| row.iter().map(|f| (-f.value).exp()).sum()).collect();
        let fullest = rows.iter().copied().fold(0.0, f64::max);
        for (row, f) in rows.iter().zip(&one.free_energy) {
            assert!(((fullest / row).ln() - f.value).abs() < 1e-9 || (*row == 0.0 && f.value == f64::INFINITY));
        }
    }

    #[test]
    fn silvermans_rule_counts_effective_samples_and_keeps_to_the_grid() {
        let report = report(vec![
            one(axis("coordinate(1)", -4.0, 4.0, 20), Some(None)),
            one(axis("coordinate(1)", -0.1, 0.1, 20), Some(None)),
            one(axis("expression(y;y=coordinate(1);period=20)", -4.0, 4.0, 20), Some(None)),
            one(axis("coordinate(1)", 50.0, 60.0, 3), Some(None)),
        ]);
        let of = |k: usize| report.profiles[k].kernel.as_ref().unwrap();
        // Of the weights exp(−u(x)) of uniform x.
        let uniform = |f: &dyn Fn(f64) -> f64| (0..6000).map(|i| f(-3.0 + f64::from(i) / 1000.0)).sum::<f64>() / 6000.0;
        let share = uniform(&|x| (-u(x)).exp()).powi(2) / uniform(&|x| (-2.0 * u(x)).exp());
        let expected = 0.9 * (share * SAMPLES as f64).powf(-0.2);
        for k in [0, 2] {
            assert_eq!(of(k).rule, BandwidthRule::Silverman);
            assert!((of(k).bandwidth / expected - 1.0).abs() < 0.04, "{} and not {expected}", of(k).bandwidth);
        }
        assert_eq!(of(1).rule, BandwidthRule::LimitedSilverman);
        let (_, most) = axis("coordinate(1)", -0.1, 0.1, 20).bandwidths();
        assert!((of(1).bandwidth - most).abs() < 1e-15 && (most - 0.2 / 20.0).abs() < 1e-15);
        assert!(of(3).bandwidth.is_nan() && of(3).free_energy.iter().all(|f| f.value.is_nan()));
    }
}
