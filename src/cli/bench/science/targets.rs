//! The targets: definitions and published numbers as the benchmarks' authors have them.

use super::super::super::quickstart::DOUBLE_WELL_SADDLE;
use super::measure::Quantity;
use super::reference::{Area, funnel, mixture, plane, wells};
use super::target::{Published, References, RegionKind, Regions, Target, TrainedOn};
use crate::coords::dihedral;
use crate::energy::analytic::{AnalyticPotential, ParticleDimer};
use crate::energy::{System, SystemDefinition};
use crate::sample::PathLength;
use std::f64::consts::PI;

/// The top between the wells of each pair of the many-well.
const MANY_WELL_SADDLE: f64 = -0.041_690_82;

/// The dimer's length at the top between closed and open.
const DIMER_SADDLE: f64 = 1.52;

/// Cells of the surface of Müller and Brown. The line y − x = 1, which divides its states, runs between the centres of
/// cells, as far from those on one side as from those on the other.
const SURFACE: Area = Area { x: (-2.5, 2.0), y: (-1.4985, 3.0015), n: 1500 };

const MOLECULE_LADDER: [f64; 9] = [300.0, 346.0, 400.0, 447.0, 500.0, 548.0, 600.0, 700.0, 820.0];

/// Temperatures over which clusters melt and come together again.
const CLUSTER_LADDER: [f64; 6] = [1.0, 1.25, 1.55, 1.93, 2.41, 3.0];

/// Temperatures over which the dimer opens and closes.
const DIMER_LADDER: [f64; 7] = [1.0, 1.25, 1.55, 2.0, 2.5, 3.2, 4.0];

/// The slope at which the dimer is open as often as closed. Its energy differs from the target's by the dimer's length alone.
const EVEN_SLOPE: f64 = -1.0;

const DIMER_PATHS: PathLength = PathLength { distributions: 200, moves: 1, leapfrog_steps: 5 };

const TORSIONS: [[usize; 4]; 2] = [[4, 6, 8, 14], [6, 8, 14, 16]];
/// Bins of each torsion.
const TORSION_BINS: usize = 64;

const FAB_JAX: &str = "fab-jax README, mean of 5 seeds";
const E_ACF: &str = "E-ACF with FAB, pull request 43 of se3-augmented-coupling-flows";
const UMBRELLA: &str = "Noé et al. 2019, umbrella sampling, middle of their range";
const CMT: &str = "constrained mass transport (ICLR 2026), table 1";

const fn published(temperature: f64, quantity: Quantity, value: f64, by: &'static str) -> Published {
    Published { temperature, quantity, value, by }
}

pub(super) static TARGETS: [Target; 11] = [
    Target {
        name: "double-well",
        trained_at: 1.0,
        temperatures: &[0.5, 0.75, 1.0, 1.5, 2.0],
        regions: |_| modes(1, 2, |x, _| usize::from(x[0] > DOUBLE_WELL_SADDLE)),
        references: References::Exact(|system, _, tau| wells(system, DOUBLE_WELL_SADDLE, tau)),
        trained_on: TrainedOn::Nothing,
        paths: None,
        published: &[],
    },
    Target {
        name: "muller-brown",
        trained_at: 1.0,
        temperatures: &[0.5, 1.0, 2.0],
        regions: |_| modes(1, 2, |x, _| usize::from(x[1] - x[0] <= 1.0)),
        references: References::Exact(|system, regions, tau| plane(system, regions, tau, SURFACE)),
        trained_on: TrainedOn::Nothing,
        paths: None,
        published: &[],
    },
    Target {
        name: "many-well-32",
        trained_at: 1.0,
        temperatures: &[0.5, 1.0, 1.5, 2.0],
        regions: |system| modes(system.dimension() / 2, 2, |x, pair| usize::from(x[2 * pair] > MANY_WELL_SADDLE)),
        references: References::Exact(|system, _, tau| wells(system, MANY_WELL_SADDLE, tau)),
        trained_on: TrainedOn::Nothing,
        paths: None,
        published: &[published(1.0, Quantity::LogZDeviation, 0.0316, FAB_JAX)],
    },
    Target {
        name: "gaussian-mixture-40",
        trained_at: 1.0,
        temperatures: &[1.0],
        regions: nearest_mean,
        references: References::Exact(|system, regions, _| mixture(system, regions)),
        trained_on: TrainedOn::Nothing,
        paths: None,
        published: &[],
    },
    Target {
        name: "gaussian-mixture-9",
        trained_at: 1.0,
        temperatures: &[1.0],
        regions: nearest_mean,
        references: References::Exact(|system, regions, _| mixture(system, regions)),
        trained_on: TrainedOn::Nothing,
        paths: None,
        published: &[published(1.0, Quantity::LogZDeviation, 0.00269, FAB_JAX)],
    },
    Target {
        name: "funnel-10",
        trained_at: 1.0,
        temperatures: &[1.0],
        regions: |_| None,
        references: References::Exact(|system, _, _| Ok(funnel(system))),
        trained_on: TrainedOn::Nothing,
        paths: None,
        published: &[published(1.0, Quantity::LogZDeviation, 0.00218, FAB_JAX)],
    },
    Target {
        name: "dw4",
        trained_at: 1.0,
        temperatures: &[1.0],
        regions: |_| None,
        references: References::ReplicaExchange(&CLUSTER_LADDER),
        trained_on: TrainedOn::Frames,
        paths: None,
        published: &[published(1.0, Quantity::ReverseEss, 0.40, E_ACF)],
    },
    Target {
        name: "lj13",
        trained_at: 1.0,
        temperatures: &[1.0],
        regions: |_| None,
        references: References::ReplicaExchange(&CLUSTER_LADDER),
        trained_on: TrainedOn::Frames,
        paths: None,
        published: &[published(1.0, Quantity::ReverseEss, 0.025, E_ACF)],
    },
    Target {
        name: "particle-dimer",
        trained_at: 1.0,
        temperatures: &[1.0],
        // Open, then closed.
        regions: |_| modes(1, 2, |x, _| usize::from((x[0] - x[2]).hypot(x[1] - x[3]) < DIMER_SADDLE)),
        references: References::ReplicaExchange(&DIMER_LADDER),
        // One frame in a thousand of the target's own is open.
        trained_on: TrainedOn::FramesOf(|| AnalyticPotential::ParticleDimer(ParticleDimer { slope: EVEN_SLOPE })),
        paths: Some(DIMER_PATHS),
        published: &[published(1.0, Quantity::DeltaF, -7.09, UMBRELLA)],
    },
    Target {
        name: "alanine-dipeptide",
        trained_at: 300.0,
        temperatures: &[300.0],
        regions: |_| Some(ramachandran()),
        references: References::ReplicaExchange(&MOLECULE_LADDER),
        trained_on: TrainedOn::Nothing,
        paths: None,
        published: &[
            published(300.0, Quantity::ReverseEss, 0.9769, CMT),
            published(300.0, Quantity::RamachandranDistance, 9.43e-3, CMT),
            published(300.0, Quantity::EnergyEvaluations, 1e8, CMT),
        ],
    },
    Target {
        name: "alanine-dipeptide-300-600",
        trained_at: 300.0,
        temperatures: &[300.0, 400.0, 500.0, 600.0],
        regions: |_| Some(ramachandran()),
        references: References::ReplicaExchange(&MOLECULE_LADDER),
        trained_on: TrainedOn::Nothing,
        paths: None,
        published: &[],
    },
];

/// The names of all targets.
pub(super) fn names() -> [&'static str; TARGETS.len()] {
    std::array::from_fn(|i| TARGETS[i].name)
}

fn modes(sets: usize, regions: usize, of: impl Fn(&[f64], usize) -> usize + Send + Sync + 'static) -> Option<Regions> {
    Some(Regions { kind: RegionKind::Modes, sets, regions, of: Box::new(of) })
}

/// The components of a mixture: configurations belong to the mean that is nearest.
fn nearest_mean(system: &System) -> Option<Regions> {
    let SystemDefinition::Analytic(AnalyticPotential::GaussianMixture(mixture)) = system.definition() else {
        return None;
    };
    let means = mixture.means.clone();
    modes(1, means.len(), move |x, _| {
        let squared = |m: &[f64; 2]| (x[0] - m[0]).powi(2) + (x[1] - m[1]).powi(2);
        let nearest = means.iter().enumerate().min_by(|a, b| squared(a.1).total_cmp(&squared(b.1)));
        nearest.map_or(0, |(k, _)| k)
    })
}

/// Bins of φ and ψ.
fn ramachandran() -> Regions {
    let of = move |x: &[f64], _: usize| {
        let bin = |atoms: [usize; 4]| {
            let [a, b, c, d] = atoms.map(|atom| [0, 1, 2].map(|k| x[3 * atom + k]));
            let turn = (dihedral(a, b, c, d) + PI) / (2.0 * PI);
            ((turn * TORSION_BINS as f64) as usize).min(TORSION_BINS - 1)
        };
        TORSION_BINS * bin(TORSIONS[0]) + bin(TORSIONS[1])
    };
    let regions = TORSION_BINS * TORSION_BINS;
    Regions { kind: RegionKind::Ramachandran, sets: 1, regions, of: Box::new(of) }
}
