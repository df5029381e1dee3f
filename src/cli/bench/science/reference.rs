//! Exact answers and exact samplers of the analytic targets.

use super::super::super::client::CliError;
use super::super::super::line::Line;
use super::target::{Marginal, Reference, Regions, Sampler, Samples};
use crate::energy::analytic::{AnalyticPotential, Funnel, GaussianMixture};
use crate::energy::{System, SystemDefinition};
use crate::math::Randoms;
use crate::math::special::HALF_LOG_TWO_PI;

/// Where the double well and the pairs of the many-well are integrated, and in how many cells. Beyond, their densities are
/// below exp(−500) of the largest at all temperatures.
const LINE: (f64, f64) = (-6.0, 6.0);
const LINE_CELLS: usize = 24_000;

/// Independent pairs (x, y): x in a well of the line, y ~ N(0, τ).
struct Wells {
    line: Line,
    pairs: usize,
    tau: f64,
}

impl Sampler for Wells {
    fn dimension(&self) -> usize {
        2 * self.pairs
    }

    fn draw(&self, random: &mut Randoms, x: &mut [f64]) {
        for pair in x.chunks_exact_mut(2) {
            pair[0] = self.line.quantile(random.uniform());
            pair[1] = self.tau.sqrt() * random.normal();
        }
    }
}

/// Answers for a sum over pairs (x, y) of a double well in x, with a top at `saddle`, and ½y². All pairs have the density of
/// the first.
pub(super) fn wells(system: &System, saddle: f64, tau: f64) -> Result<Reference, CliError> {
    let d = system.dimension();
    let mut rows = vec![0.0; (LINE_CELLS + 1) * d];
    for (i, row) in rows.chunks_exact_mut(d).enumerate() {
        row[0] = LINE.0 + (LINE.1 - LINE.0) * i as f64 / LINE_CELLS as f64;
    }
    let line = Line::new(&energies(system, &rows, None)?, tau, LINE);
    let pairs = d / 2;
    let log_z = pairs as f64 * (line.log_z + 0.5 * tau.ln() + HALF_LOG_TWO_PI);
    let mean_energy = pairs as f64 * (line.mean_energy + 0.5 * tau);
    let left = line.below(saddle);
    Ok(Reference {
        log_z: Some(log_z),
        mean_log_p: Some(-mean_energy / tau - log_z),
        weights: [left, 1.0 - left].repeat(pairs),
        marginal: Some(Marginal {
            name: if pairs > 1 { "x of the first pair" } else { "x" },
            of: |x| x.first().copied().unwrap_or(f64::NAN),
            density: line.density().collect(),
        }),
        samples: Samples::Independent(Box::new(Wells { line, pairs, tau })),
    })
}

/// A rectangle of n × n cells.
#[derive(Clone, Copy)]
pub(super) struct Area {
    pub x: (f64, f64),
    pub y: (f64, f64),
    pub n: usize,
}

impl Area {
    fn steps(&self) -> (f64, f64) {
        ((self.x.1 - self.x.0) / self.n as f64, (self.y.1 - self.y.0) / self.n as f64)
    }

    /// The middle of a cell.
    fn centre(&self, cell: usize) -> [f64; 2] {
        let (hx, hy) = self.steps();
        [self.x.0 + ((cell / self.n) as f64 + 0.5) * hx, self.y.0 + ((cell % self.n) as f64 + 0.5) * hy]
    }
}

/// A density exp(−u/τ) on the plane, sampled by rejection: a cell by a bound of the density in it, a point of the cell.
struct Plane {
    area: Area,
    system: System,
    tau: f64,
    /// log of the bound in each cell, and the sums of the bounds, relative to the largest.
    log_bounds: Vec<f64>,
    cumulative: Vec<f64>,
}

impl Plane {
    /// In a cell the density is at most what it is at the centre, times what the steepest slope of the cell and of its
    /// neighbours makes of it on the way to a corner.
    fn new(area: Area, system: &System, tau: f64, energies: &[f64], gradients: &[f64]) -> Self {
        let (n, (hx, hy)) = (area.n, area.steps());
        let steepest = |cell: usize, axis: usize| {
            let around = |i: usize| i.saturating_sub(1)..(i + 2).min(n);
            let neighbours = around(cell / n).flat_map(|i| around(cell % n).map(move |j| i * n + j));
            neighbours.map(|k| gradients[2 * k + axis].abs()).fold(0.0, f64::max)
        };
        let bound = |cell: usize| (0.5 * (hx * steepest(cell, 0) + hy * steepest(cell, 1)) - energies[cell]) / tau;
        let log_bounds: Vec<f64> = (0..n * n).map(bound).collect();
        let largest = log_bounds.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut sum = 0.0;
        let cumulative = log_bounds.iter().map(|bound| {
            sum += (bound - largest).exp();
            sum
        });
        Self { cumulative: cumulative.collect(), log_bounds, area, system: system.clone(), tau }
    }
}

impl Sampler for Plane {
    fn dimension(&self) -> usize {
        2
    }

    fn draw(&self, random: &mut Randoms, x: &mut [f64]) {
        let total = self.cumulative.last().copied().unwrap_or(0.0);
        let (hx, hy) = self.area.steps();
        loop {
            let mass = random.uniform() * total;
            let cell = self.cumulative.partition_point(|&c| c <= mass).min(self.cumulative.len() - 1);
            let centre = self.area.centre(cell);
            x[0] = centre[0] + (random.uniform() - 0.5) * hx;
            x[1] = centre[1] + (random.uniform() - 0.5) * hy;
            let mut energy = [0.0];
            // An energy that cannot be had would be rejected for ever.
            let known = self.system.potential().evaluate(x, &mut energy, None).is_ok();
            if !known || random.uniform().ln() <= -energy[0] / self.tau - self.log_bounds[cell] {
                return;
            }
        }
    }
}

/// Answers for a potential in the plane by the midpoint rule, which is exact to rounding for a smooth density that vanishes
/// at the edges. The weights of regions are those of the cells whose centres are in them; the density of y − x is summed
/// along the diagonals, on which it is constant where cells are squares.
pub(super) fn plane(system: &System, regions: Option<&Regions>, tau: f64, area: Area) -> Result<Reference, CliError> {
    let rows: Vec<f64> = (0..area.n * area.n).flat_map(|cell| area.centre(cell)).collect();
    let mut gradients = vec![0.0; rows.len()];
    let energies = energies(system, &rows, Some(&mut gradients))?;
    let least = energies.iter().copied().fold(f64::INFINITY, f64::min);
    let (mut sum, mut energy_sum) = (0.0, 0.0);
    let mut weights = vec![0.0; regions.map_or(0, |r| r.sets * r.regions)];
    let mut diagonals = vec![0.0; 2 * area.n];
    for (cell, (u, x)) in energies.iter().zip(rows.chunks_exact(2)).enumerate() {
        let p = ((least - u) / tau).exp();
        sum += p;
        energy_sum += p * u;
        diagonals[area.n + cell % area.n - cell / area.n] += p;
        let Some(regions) = regions else { continue };
        for (set, region) in regions.of_all(x).enumerate() {
            weights[set * regions.regions + region] += p;
        }
    }
    weights.iter_mut().for_each(|w| *w /= sum);
    let (hx, hy) = area.steps();
    let log_z = (sum * hx * hy).ln() - least / tau;
    let difference = |diagonal: usize| area.y.0 - area.x.0 + (diagonal as f64 - area.n as f64) * hx;
    let density = diagonals.iter().enumerate().map(|(k, p)| (difference(k), p / (sum * hx)));
    let are_squares = (hx - hy).abs() < 1e-9 * hx;
    Ok(Reference {
        log_z: Some(log_z),
        mean_log_p: Some(-energy_sum / sum / tau - log_z),
        weights,
        marginal: are_squares.then(|| Marginal { name: "y − x", of: difference_of, density: density.collect() }),
        samples: Samples::Independent(Box::new(Plane::new(area, system, tau, &energies, &gradients))),
    })
}

/// y − x of a point in the plane.
fn difference_of(x: &[f64]) -> f64 {
    if let [x, y] = x { y - x } else { f64::NAN }
}

impl Sampler for GaussianMixture {
    fn dimension(&self) -> usize {
        2
    }

    fn draw(&self, random: &mut Randoms, x: &mut [f64]) {
        let component = random.below(self.means.len() as u64) as usize;
        for (x, mean) in x.iter_mut().zip(self.means[component]) {
            *x = mean + self.standard_deviation * random.normal();
        }
    }
}

/// Cells along a side of the square that a mixture is integrated over, and how many standard deviations it reaches beyond
/// the outermost mean.
const MIXTURE_CELLS: usize = 800;
const BEYOND: f64 = 8.0;

/// Answers for a mixture at τ = 1, where it is a mixture.
pub(super) fn mixture(system: &System, regions: Option<&Regions>) -> Result<Reference, CliError> {
    let SystemDefinition::Analytic(AnalyticPotential::GaussianMixture(mixture)) = system.definition() else {
        return Ok(Reference::unknown());
    };
    let outermost = mixture.means.iter().flatten().fold(0.0, |most: f64, m| most.max(m.abs()));
    let side = outermost + BEYOND * mixture.standard_deviation;
    let area = Area { x: (-side, side), y: (-side, side), n: MIXTURE_CELLS };
    let integrals = plane(system, regions, 1.0, area)?;
    // Modes that lie in the plane hide each other in a projection.
    let samples = Samples::Independent(Box::new(mixture.clone()));
    Ok(Reference { log_z: Some(0.0), marginal: None, samples, ..integrals })
}

impl Sampler for Funnel {
    fn dimension(&self) -> usize {
        self.dimension
    }

    fn draw(&self, random: &mut Randoms, x: &mut [f64]) {
        let first = self.standard_deviation * random.normal();
        x.iter_mut().for_each(|x| *x = (0.5 * first).exp() * random.normal());
        x[0] = first;
    }
}

/// Answers for the funnel at τ = 1: its entropy is that of the first coordinate and the mean of those of the others.
pub(super) fn funnel(system: &System) -> Reference {
    let SystemDefinition::Analytic(AnalyticPotential::Funnel(funnel)) = system.definition() else {
        return Reference::unknown();
    };
    let entropy = funnel.dimension as f64 * (0.5 + HALF_LOG_TWO_PI) + funnel.standard_deviation.ln();
    Reference {
        log_z: Some(0.0),
        mean_log_p: Some(-entropy),
        weights: Vec::new(),
        marginal: None,
        samples: Samples::Independent(Box::new(funnel.clone())),
    }
}

/// Energies (n) of rows, and gradients if there is a place for them.
fn energies(system: &System, rows: &[f64], gradients: Option<&mut [f64]>) -> Result<Vec<f64>, CliError> {
    let mut energies = vec![0.0; rows.len() / system.dimension().max(1)];
    let evaluated = system.potential().evaluate(rows, &mut energies, gradients);
    evaluated.map_err(|e| CliError::failed(e.to_string()))?;
    Ok(energies)
}

#[cfg(test)]
mod tests {
    use super::super::target::References;
    use super::super::targets::TARGETS;
    use super::*;

    /// A false alarm of one comparison at this many standard errors has a probability of 6e-7.
    const SIGMA: f64 = 5.0;
    const N: usize = 100_000;

    fn reference(name: &str, tau: f64) -> Reference {
        let target = TARGETS.iter().find(|t| t.name == name).unwrap();
        let system = target.system().unwrap();
        let regions = (target.regions)(&system);
        let References::Exact(reference) = target.references else { panic!("{name} has no exact reference") };
        assert!(target.temperatures.contains(&tau), "{name} is not measured at {tau}");
        reference(&system, regions.as_ref(), tau).unwrap()
    }

    fn samples(reference: &Reference) -> Vec<f64> {
        let Samples::Independent(sampler) = &reference.samples else { panic!("there is no sampler") };
        sampler.sample(3, N)
    }

    /// That f has this mean over the samples, within its standard error.
    fn check(what: &str, x: &[f64], d: usize, exact: f64, f: impl Fn(&[f64]) -> f64) {
        let n = (x.len() / d) as f64;
        let (sum, squares) = x.chunks_exact(d).map(f).fold((0.0, 0.0), |(s, q), f| (s + f, q + f * f));
        let error = ((squares / n - (sum / n).powi(2)) / n).sqrt();
        assert!((sum / n - exact).abs() < SIGMA * error, "{what}: {} ± {error} for {exact}", sum / n);
    }

    /// The tables of the benchmarks, to their digits.
    #[test]
    fn integrals_are_the_known_ones() {
        for (name, tau, log_z, delta_f) in [
            ("double-well", 0.5, 21.036795, 6.84940),
            ("double-well", 1.0, 11.020467, 3.380006),
            ("double-well", 2.0, 6.509507, 1.633447),
            ("muller-brown", 0.5, 25.650157, 7.6589),
            ("muller-brown", 1.0, 11.729591, 3.6437),
            ("muller-brown", 2.0, 5.366083, 1.4777),
        ] {
            let r = reference(name, tau);
            assert!((r.log_z.unwrap() - log_z).abs() < 2e-6, "{name} at {tau}: {:?}", r.log_z);
            let known = (r.weights[0] / r.weights[1]).ln();
            assert!((known - delta_f).abs() < 1e-3, "{name} at {tau}: {known}");
        }
        for (tau, log_z, mean_log_p, right) in [
            (0.5, 309.1625098, -11.204045, 0.9684961),
            (1.0, 164.6956753, -27.497217, 0.8443106),
            (2.0, 100.4502824, -42.854800, 0.6936077),
        ] {
            let r = reference("many-well-32", tau);
            assert!((r.log_z.unwrap() - log_z).abs() < 1e-6 && (r.mean_log_p.unwrap() - mean_log_p).abs() < 1e-6);
            assert!(r.weights.len() == 32 && (r.weights[1] - right).abs() < 1e-6 && r.weights[31] == r.weights[1]);
        }
        let forty = reference("gaussian-mixture-40", 1.0);
        assert!((forty.mean_log_p.unwrap() + 6.8585).abs() < 0.001, "{:?}", forty.mean_log_p);
        assert!((forty.weights.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert!((reference("funnel-10", 1.0).mean_log_p.unwrap() + 15.287998).abs() < 1e-6);
    }

    /// The weight of a mode is the integral of the density over it.
    #[test]
    fn densities_have_the_weights_of_the_modes() {
        for (name, saddle, upper) in
            [("double-well", 0.08352759, 1), ("muller-brown", 1.0, 0), ("many-well-32", -0.04169082, 1)]
        {
            let r = reference(name, 1.0);
            let density = r.marginal.unwrap().density;
            let step = density[1].0 - density[0].0;
            let all: f64 = density.iter().map(|p| p.1 * step).sum();
            let above: f64 = density.iter().filter(|p| p.0 > saddle).map(|p| p.1 * step).sum();
            assert!((all - 1.0).abs() < 1e-9, "{name}: {all}");
            assert!((above - r.weights[upper]).abs() < 1e-5, "{name}: {above} for {}", r.weights[upper]);
        }
    }

    /// E_p[log p] by the samplers, of which the energy is a part, and the moments that are known besides: 25 comparisons, so
    /// one false alarm in 70,000 choices of the seed.
    #[test]
    fn samplers_have_the_exact_moments() {
        for target in &TARGETS {
            let system = target.system().unwrap();
            for &tau in target.temperatures {
                let References::Exact(_) = target.references else { continue };
                let r = reference(target.name, tau);
                let x = samples(&r);
                let u = energies(&system, &x, None).unwrap();
                check(target.name, &u, 1, r.mean_log_p.unwrap(), |u| -u[0] / tau - r.log_z.unwrap());
            }
        }
        let one = |name| samples(&reference(name, 1.0));
        check("⟨x⟩ of the double well", &one("double-well"), 2, -1.625360, |x| x[0]);
        check("p(right)", &one("double-well"), 2, 0.03292621, |x| f64::from(x[0] > 0.08352759));
        check("y²", &one("double-well"), 2, 1.0, |x| x[1] * x[1]);
        check("P[y − x > 1]", &one("muller-brown"), 2, 0.9745159, |x| f64::from(x[1] - x[0] > 1.0));
        check("p(right) of the last pair", &one("many-well-32"), 32, 0.8443106, |x| f64::from(x[30] > -0.04169082));
        check("⟨x⟩ of 40", &one("gaussian-mixture-40"), 2, -2.14051, |x| x[0]);
        check("variance of 40", &one("gaussian-mixture-40"), 2, 623.4340, |x| (x[1] - 1.24004).powi(2));
        let funnel = one("funnel-10");
        check("x₀²", &funnel, 10, 9.0, |x| x[0] * x[0]);
        check("xᵢ²", &funnel, 10, 1.0, |x| x[9] * x[9] * (-x[0]).exp());
        check("x₀ and xᵢ", &funnel, 10, 0.0, |x| x[0] * x[4] * (-0.5 * x[0]).exp());
    }
}
