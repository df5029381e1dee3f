//! Potentials of particles: known energies and minima, the coordinates that flows have of them, and log Z from end to end.

mod determinant;
mod quiet;

use boltzflow::coords::{
    CartesianCoordinates, CoordinateChoice, CoordinateTransform, ReducedTarget, RelabelledCoordinates,
    choose_coordinates, preview_kinds,
};
use boltzflow::energy::analytic::{AnalyticPotential, DoubleWellCluster, LennardJonesCluster, ParticleDimer};
use boltzflow::energy::{System, SystemDefinition, minimise};
use boltzflow::math::{Purpose, Randoms};
use boltzflow::sample::{Generator, SampleKey};
use boltzflow::train::{Outcome, Trainer, default_plan, run};
use candle_core::Device;
use determinant::log_abs_det;
use quiet::Quiet;
use std::sync::Arc;

fn analytic(potential: AnalyticPotential) -> System {
    System::build(SystemDefinition::Analytic(potential)).unwrap()
}

fn built_in(name: &str) -> System {
    analytic(AnalyticPotential::built_in(name).unwrap())
}

fn energy(system: &System, x: &[f64]) -> f64 {
    let mut energy = [0.0];
    system.potential().evaluate(x, &mut energy, None).unwrap();
    energy[0]
}

fn numbers(n: usize, seed: u64) -> Vec<f64> {
    let mut random = Randoms::new(seed, Purpose::Validation, 0);
    (0..n).map(|_| random.normal()).collect()
}

/// The minimum of the 13-particle cluster is an icosahedron, of energy −44.326801 (Hoare and Pal 1971); a square of DW4
/// has four pairs at the offset and two at its diagonal; the dimer's numbers are the published formula's, by NumPy.
#[test]
fn energies_are_the_published_ones() {
    let golden = (1.0 + 5f64.sqrt()) / 2.0;
    let mut x = vec![0.0; 3];
    for axis in 0..3 {
        for (a, b) in [(1.0, golden), (1.0, -golden), (-1.0, golden), (-1.0, -golden)] {
            let mut vertex = [0.0; 3];
            vertex[axis] = 0.5 * a;
            vertex[(axis + 1) % 3] = 0.5 * b;
            x.extend(vertex);
        }
    }
    let free = analytic(AnalyticPotential::LennardJonesCluster(LennardJonesCluster { k: 1e-12, ..Default::default() }));
    minimise(free.potential().as_ref(), &mut x, 1e-7).unwrap();
    assert!((energy(&free, &x) + 44.326801).abs() < 1e-6, "{}", energy(&free, &x));
    let moments: f64 = x.iter().map(|x| 0.5 * x * x).sum();
    assert!((energy(&built_in("lj13"), &x) - energy(&free, &x) - moments).abs() < 1e-9);

    let square = [0.0, 0.0, 4.0, 0.0, 4.0, 4.0, 0.0, 4.0];
    let s = 4.0 * (2f64.sqrt() - 1.0);
    assert!((energy(&built_in("dw4"), &square) - 2.0 * (-4.0 * s * s + 0.9 * s.powi(4))).abs() < 1e-10);

    let potential = ParticleDimer::default();
    let start = AnalyticPotential::ParticleDimer(potential.clone()).start();
    let dimer = analytic(AnalyticPotential::ParticleDimer(potential));
    let moved: Vec<f64> = start.iter().enumerate().map(|(k, x)| 1.01 * x + 0.05 * (k as f64).sin()).collect();
    for (x, exact) in [(&start, 4898.271555086989), (&moved, 4237.444287996859)] {
        assert!((energy(&dimer, x) / exact - 1.0).abs() < 1e-12, "{}", energy(&dimer, x));
    }
}

#[test]
fn what_cannot_be_a_cluster_is_refused() {
    let refused = |potential| System::build(SystemDefinition::Analytic(potential)).unwrap_err().to_string();
    let cluster = DoubleWellCluster::default();
    let one = DoubleWellCluster { particles: 1, ..cluster.clone() };
    assert!(refused(AnalyticPotential::DoubleWellCluster(one)).contains("particles is 1"));
    let many = DoubleWellCluster { particles: usize::MAX, ..cluster.clone() };
    assert!(refused(AnalyticPotential::DoubleWellCluster(many)).contains("particles"));
    let line = DoubleWellCluster { space: 1, ..cluster };
    assert!(refused(AnalyticPotential::DoubleWellCluster(line)).contains("space is 1"));
    let soft = LennardJonesCluster { r_m: 0.0, ..Default::default() };
    assert!(refused(AnalyticPotential::LennardJonesCluster(soft)).contains("r_m is 0"));
    let dimer = ParticleDimer { slope: f64::NAN };
    assert!(refused(AnalyticPotential::ParticleDimer(dimer)).contains("slope"));
}

fn check_transform(system: &System, transform: &Arc<dyn CoordinateTransform>, y: &[f64]) {
    let d = system.dimension();
    assert_eq!(transform.kinds(), preview_kinds(system, true, &CoordinateChoice::Automatic).unwrap());
    let stored = serde_json::to_string(&transform.spec()).unwrap();
    let again: boltzflow::coords::CoordinatesSpec = serde_json::from_str(&stored).unwrap();
    assert_eq!(again.build(d).unwrap().spec(), transform.spec());
    let (mut x, mut back) = (vec![0.0; d], vec![0.0; y.len()]);
    let ladj = transform.to_positions(y, &mut x);
    assert!(ladj.is_finite());
    assert!((transform.to_coordinates(&x, &mut back) - ladj).abs() < 1e-10);
    assert!(y.iter().zip(&back).all(|(a, b)| (a - b).abs() < 1e-10));

    let target = ReducedTarget::new(system.clone(), Arc::clone(transform));
    let gradient = target.evaluate_with_gradient(y, |_| 1.0, |_| 1.0).unwrap().gradients;
    for k in 0..y.len() {
        let at = |delta: f64| {
            let mut y = y.to_vec();
            y[k] += delta;
            let batch = target.evaluate(&y).unwrap();
            batch.energies[0] - batch.ladj[0]
        };
        let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
        assert!((numeric - gradient[k]).abs() < 1e-4 * (1.0 + numeric.abs()), "{k}: {numeric} and {}", gradient[k]);
    }
}

/// The map from coordinates and the mean (an orthonormal basis of it) to positions has the determinant that ladj says.
#[test]
fn clusters_have_coordinates_about_their_mean() {
    for (name, space) in [("dw4", 2), ("lj13", 3)] {
        let system = built_in(name);
        let d = system.dimension();
        let data: Vec<f64> = numbers(20 * d, 3).iter().map(|x| 5.0 + 1.5 * x).collect();
        for data in [None, Some(data.as_slice())] {
            let transform = choose_coordinates(&system, data, 1.0, &CoordinateChoice::Automatic).unwrap();
            let y = numbers(d - space, 4);
            check_transform(&system, &transform, &y);
            let mut x = vec![0.0; d];
            let ladj = transform.to_positions(&y, &mut x);
            let column = |k: usize| {
                let (mut unit, mut x) = (vec![0.0; d - space], vec![0.0; d]);
                unit[k] = 1.0;
                transform.to_positions(&unit, &mut x);
                x
            };
            let particles = (d / space) as f64;
            let together = |axis: usize| (0..d).map(|k| f64::from(k % space == axis) / particles.sqrt()).collect();
            let columns = (0..d - space).map(column).chain((0..space).map(together)).collect();
            assert!((ladj - log_abs_det(columns)).abs() < 1e-10, "{name}: {ladj}");
            // Moved together, particles are the same configuration.
            let moved: Vec<f64> = x.iter().enumerate().map(|(k, x)| x + [3.0, -1.0, 0.5][k % space]).collect();
            let mut back = vec![0.0; d - space];
            transform.to_coordinates(&moved, &mut back);
            assert!(y.iter().zip(&back).all(|(a, b)| (a - b).abs() < 1e-10));
        }
    }
}

/// Of all orders of the solvent's particles, and of the dimer's, one is made; all have the same coordinates.
#[test]
fn identical_particles_have_one_order() {
    let system = built_in("particle-dimer");
    let d = system.dimension();
    let start = AnalyticPotential::ParticleDimer(ParticleDimer::default()).start();
    let frames: Vec<f64> =
        (0..30).flat_map(|f| start.iter().zip(numbers(d, f)).map(|(x, z)| x + 0.6 * z).collect::<Vec<_>>()).collect();
    let permuted = |x: &[f64], seed: u64| {
        let mut random = Randoms::new(seed, Purpose::Validation, 1);
        let mut order: Vec<usize> = (0..38).collect();
        for k in (3..38).rev() {
            order.swap(k, 2 + (random.uniform() * (k - 1) as f64) as usize);
        }
        if random.uniform() < 0.5 {
            order.swap(0, 1);
        }
        order.iter().flat_map(|i| [x[2 * i], x[2 * i + 1]]).collect::<Vec<f64>>()
    };
    let mixed: Vec<f64> = frames.chunks_exact(d).zip(9..).flat_map(|(x, seed)| permuted(x, seed)).collect();
    let transform = choose_coordinates(&system, Some(&frames), 1.0, &CoordinateChoice::Automatic).unwrap();
    assert_eq!(
        choose_coordinates(&system, Some(&mixed), 1.0, &CoordinateChoice::Automatic).unwrap().spec(),
        transform.spec()
    );
    assert!(transform.description().contains("relabelled"), "{}", transform.description());
    for (f, frame) in frames.chunks_exact(d).enumerate() {
        let (mut y, mut placed) = (vec![0.0; d], vec![0.0; d]);
        let ladj = transform.to_coordinates(frame, &mut y);
        assert!((transform.to_positions(&y, &mut placed) - ladj).abs() < 1e-9);
        assert!((energy(&system, &placed) / energy(&system, frame) - 1.0).abs() < 1e-9);
        for seed in 0..5 {
            let (other, mut of_other) = (permuted(frame, seed), vec![0.0; d]);
            assert_eq!(transform.to_coordinates(&other, &mut of_other), ladj);
            assert_eq!(of_other, y);
        }
        // Two of them exchanged is another order, which has no density.
        let (i, j) = (2 + f % 36, 2 + (f + 7) % 36);
        let mut other = y.clone();
        for axis in 0..2 {
            let (a, b) = (2 * i + axis, 2 * j + axis);
            (other[a], other[b]) = (0.0, 0.0);
            let mut x = placed.clone();
            x.swap(a, b);
            let cartesian = |k: usize| {
                // Cartesian coordinates are scaled one by one: solve for the one that puts the particle there.
                let mut at = [0.0; 2];
                for (at, value) in at.iter_mut().zip([0.0, 1.0]) {
                    let (mut y, mut x) = (y.clone(), vec![0.0; d]);
                    y[k] = value;
                    transform.to_positions(&y, &mut x);
                    *at = x[k];
                }
                (x[k] - at[0]) / (at[1] - at[0])
            };
            (other[a], other[b]) = (cartesian(a), cartesian(b));
        }
        assert_eq!(transform.to_positions(&other, &mut placed), f64::NEG_INFINITY, "{i} and {j} in frame {f}");
    }
    let near: Vec<f64> = numbers(d, 50).iter().map(|z| 0.05 * z).collect();
    let without_data = choose_coordinates(&system, None, 1.0, &CoordinateChoice::Automatic).unwrap();
    check_transform(&system, &without_data, &near);
    let log_orders: f64 = 2f64.ln() + (2..=36).map(|k| f64::from(k).ln()).sum::<f64>();
    let log_scales: f64 = 4.0 * 0.3f64.ln() + 72.0 * 0.5f64.ln();
    assert!((without_data.to_positions(&near, &mut vec![0.0; d]) - log_orders - log_scales).abs() < 1e-9);
}

/// Three particles that can be exchanged, in one harmonic trap: what is left of their orders has 1/3! of the integral.
#[test]
fn one_order_stands_for_all_in_the_integral() {
    let reference = vec![0.3, 0.1, -0.5, 0.4, 0.2, -0.7];
    let cartesian = CartesianCoordinates::new(&[(0.0, 1.0); 6]).unwrap();
    let transform = RelabelledCoordinates::new(cartesian, 2, std::iter::once(0..3).collect(), reference).unwrap();
    let n = 60_000;
    let (y, mut x) = (numbers(6 * n, 8), vec![0.0; 6]);
    // Weights are 3! where there is density and 0 elsewhere; the trap's density is that of y.
    let mean = y.chunks_exact(6).map(|y| transform.to_positions(y, &mut x).exp()).sum::<f64>() / n as f64;
    let error = (5.0 / n as f64).sqrt();
    // A false alarm in 16,000 seeds.
    assert!((mean - 1.0).abs() < 4.0 * error, "{mean} ± {error}");
}

/// (log Z, its standard error, ESS) of a model trained by energies alone, for a third of the usual steps.
fn trained(system: System, temperature: f64) -> (f64, f64, f64) {
    let mut plan = default_plan(&system, temperature, None, false);
    plan.stages.iter_mut().for_each(|stage| stage.steps /= 3);
    let mut trainer = Trainer::new(plan, system, None, &Device::Cpu).unwrap();
    let Outcome::Finished { model, .. } = run(&mut trainer, &mut Quiet).unwrap() else { panic!("not finished") };
    let model = Generator::decode(&model, &Device::Cpu).unwrap();
    let method = model.choose_method(temperature, None, |key, count| model.samples(key, 0, count)).unwrap().method;
    let key = SampleKey { temperature, method, seed: 1, purpose: Purpose::Sample };
    let weights: Vec<f64> = (0..60).flat_map(|i| model.samples(&key, 512 * i, 512).unwrap().log_weights).collect();
    let largest = weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (n, sum, squares) =
        weights.iter().map(|w| (w - largest).exp()).fold((0.0, 0.0, 0.0), |(n, s, q), w| (n + 1.0, s + w, q + w * w));
    let ess = sum * sum / squares / n;
    (largest + (sum / n).ln(), ((1.0 / ess - 1.0) / n).sqrt(), ess)
}

/// Two particles of the double-well cluster: ∫ exp(−u) over the plane of y = (x₁ − x₂)/√2 by quadrature.
#[test]
fn a_cluster_has_its_exact_integral() {
    let pair = DoubleWellCluster { particles: 2, ..Default::default() };
    let (log_z, error, ess) = trained(analytic(AnalyticPotential::DoubleWellCluster(pair)), 1.0);
    println!("log Z {log_z} ± {error}, ESS {ess}");
    assert!(ess > 0.3 && (log_z - 7.260392993086798).abs() < 4.0 * error, "{log_z} ± {error}, ESS {ess}");
}

/// What is free to move along an axis has no integral over it, and a step of a coordinate is a use of it.
#[test]
fn what_nothing_holds_is_refused() {
    let system = |energy: &str| {
        let masses = "<Particle mass=\"12\"/>".repeat(3);
        let rows: String = (0..3).map(|i| format!("<Particle index=\"{i}\"/>")).collect();
        let system_xml = format!(
            "<System version=\"1\"><Particles>{masses}</Particles><Constraints/><Forces><Force type=\"HarmonicBondForce\" \
             version=\"2\"><Bonds><Bond p1=\"0\" p2=\"1\" d=\"0.1\" k=\"1000\"/><Bond p1=\"1\" p2=\"2\" d=\"0.1\" \
             k=\"1000\"/></Bonds></Force><Force type=\"CustomExternalForce\" version=\"1\" energy=\"{energy}\">\
             <PerParticleParameters/><GlobalParameters/><Particles>{rows}</Particles></Force></Forces></System>"
        );
        System::build(SystemDefinition::OpenMm { system_xml, topology_pdb: None }).unwrap()
    };
    let frames: Vec<f64> = numbers(9, 4).iter().chain(&numbers(9, 5)).map(|z| 0.05 * z).collect();
    let choose = |energy: &str| choose_coordinates(&system(energy), Some(&frames), 300.0, &CoordinateChoice::Automatic);
    for (energy, axis) in [("500*z^2", "x"), ("5*step(x)+20*step(abs(x)-1)+x^2", "y")] {
        let error = choose(energy).unwrap_err().to_string();
        assert!(error.contains(&format!("nothing holds it along {axis}")), "{error}");
    }
    // A wall that is far away is a wall.
    assert!(choose("1000*step(r-5)*(r-5)^2; r=sqrt(x^2+y^2+z^2)").unwrap().description().contains("Cartesian"));
}

/// One particle in a CustomExternalForce, with neither data nor a structure: a double well along x, at 300 K.
#[test]
fn an_external_force_on_one_particle_is_a_complete_system() {
    let xml = "<System version=\"1\"><Particles><Particle mass=\"12\"/></Particles><Constraints/><Forces><Force \
               type=\"CustomExternalForce\" version=\"1\" energy=\"a*(x^2-w)^2/w^2+40*(y-1)^2+90*z^2\">\
               <PerParticleParameters/><GlobalParameters><Parameter name=\"a\" default=\"6\"/><Parameter name=\"w\" \
               default=\"0.25\"/></GlobalParameters><Particles><Particle index=\"0\"/></Particles></Force></Forces>\
               </System>";
    let system = System::build(SystemDefinition::OpenMm { system_xml: xml.into(), topology_pdb: None }).unwrap();
    let kt = system.scale().kt(300.0);
    let n = 40_000;
    let wells: f64 = (0..n)
        .map(|k| {
            let x = -2.0 + 4.0 * (f64::from(k) + 0.5) / f64::from(n);
            (-6.0 * (x * x - 0.25f64).powi(2) / 0.0625 / kt).exp() * 4.0 / f64::from(n)
        })
        .sum();
    let pi = std::f64::consts::PI;
    let exact = wells.ln() + 0.5 * (pi * kt / 40.0).ln() + 0.5 * (pi * kt / 90.0).ln();
    let (log_z, error, ess) = trained(system, 300.0);
    println!("log Z {log_z} ± {error}, exact {exact}, ESS {ess}");
    assert!(ess > 0.8 && (log_z - exact).abs() < 4.0 * error, "{log_z} ± {error}, exact {exact}, ESS {ess}");
}
