//! The benchmark potentials against their exact integrals, by quadrature, and their gradients against finite differences.

use boltzflow::contract::v1::system::Definition;
use boltzflow::contract::{analytic_message, system_definition};
use boltzflow::energy::analytic::{AnalyticPotential, Funnel, GaussianMixture, Harmonic, MullerBrown};
use boltzflow::energy::{System, SystemDefinition};
use boltzflow::math::{LogSumExp, Purpose, Randoms};

fn built_in(name: &str) -> System {
    System::build(SystemDefinition::Analytic(AnalyticPotential::built_in(name).unwrap())).unwrap()
}

fn energies(system: &System, x: &[f64]) -> Vec<f64> {
    let mut energies = vec![0.0; x.len() / system.dimension()];
    system.potential().evaluate(x, &mut energies, None).unwrap();
    energies
}

/// log ∫ exp(−u/τ) over a rectangle by the midpoint rule (its error is far below 1e-6 for smooth integrands that vanish
/// at the edges), and the share of it where `inside` holds.
fn integrate(
    system: &System,
    tau: f64,
    [x0, x1, y0, y1]: [f64; 4],
    n: usize,
    inside: impl Fn(f64, f64) -> bool,
) -> (f64, f64) {
    let (hx, hy) = ((x1 - x0) / n as f64, (y1 - y0) / n as f64);
    let (mut total, mut part) = (LogSumExp::default(), LogSumExp::default());
    for i in 0..n {
        let x = x0 + (i as f64 + 0.5) * hx;
        let row: Vec<f64> = (0..n).flat_map(|j| [x, y0 + (j as f64 + 0.5) * hy]).collect();
        for (u, p) in energies(system, &row).into_iter().zip(row.chunks(2)) {
            total.add(-u / tau);
            if inside(p[0], p[1]) {
                part.add(-u / tau);
            }
        }
    }
    (total.value() + (hx * hy).ln(), (part.value() - total.value()).exp())
}

#[test]
fn double_well_and_muller_brown_have_their_published_integrals() {
    let double_well = built_in("double-well");
    for (tau, log_z, p_right) in
        [(0.5f64, 21.036795, 0.00105897), (1.0, 11.020467, 0.03292621), (2.0, 6.509507, 0.16335866)]
    {
        let area = [-4.5, 4.5, -9.0 * tau.sqrt(), 9.0 * tau.sqrt()];
        let (z, p) = integrate(&double_well, tau, area, 1200, |x, _| x > 0.08352759);
        assert!((z - log_z).abs() < 2e-6, "log Z({tau}) = {z}");
        // The saddle falls within a cell: the share is exact to half a cell of the barrier's density.
        assert!((p - p_right).abs() < 2e-6 + 1e-3 * p_right, "p(right, {tau}) = {p}");
    }
    let muller_brown = built_in("muller-brown");
    for (tau, log_z, p) in [(0.5, 25.650157, 0.9995284), (1.0, 11.729591, 0.9745159), (2.0, 5.366083, 0.8142349)] {
        let (z, share) = integrate(&muller_brown, tau, [-2.5, 2.0, -1.5, 3.0], 1200, |x, y| y - x > 1.0);
        assert!((z - log_z).abs() < 2e-5, "log Z({tau}) = {z}");
        assert!((share - p).abs() < 1e-3 * (1.0 - p) + 1e-4, "P[y − x > 1]({tau}) = {share}");
    }
    let stiffer = AnalyticPotential::MullerBrown(MullerBrown { scale: 0.15, dimension: 2 });
    let stiffer = System::build(SystemDefinition::Analytic(stiffer)).unwrap();
    let (z, _) = integrate(&stiffer, 1.0, [-2.5, 2.0, -1.5, 3.0], 1200, |_, _| true);
    assert!((z - 18.615439).abs() < 2e-5);
}

#[test]
fn many_well_and_mixture_have_their_published_values() {
    let many_well = built_in("many-well-32");
    let n = 40_000;
    for (tau, z_exact) in [(0.5, 1.390427396e8), (1.0, 11784.509265), (2.0, 150.299583)] {
        // One pair's x, the other coordinates at zero, where they contribute nothing.
        let rows: Vec<f64> = (0..n)
            .flat_map(|i| {
                let mut row = vec![0.0; 32];
                row[0] = -5.0 + 10.0 * (f64::from(i) + 0.5) / f64::from(n);
                row
            })
            .collect();
        let z: f64 = energies(&many_well, &rows).iter().map(|u| (-u / tau).exp()).sum::<f64>() * 10.0 / f64::from(n);
        assert!((z / z_exact - 1.0).abs() < 1e-8, "Z_x({tau}) = {z}");
    }
    let mut modes = vec![0.0; 32];
    modes.iter_mut().step_by(2).for_each(|x| *x = 1.75251986);
    assert!((energies(&many_well, &modes)[0] - 16.0 * -9.871173).abs() < 1e-4);

    let (log_z, corner) =
        integrate(&built_in("gaussian-mixture-9"), 1.0, [-10.0, 10.0, -10.0, 10.0], 400, |x, y| x > 2.5 && y > 2.5);
    assert!(log_z.abs() < 1e-9 && (corner - 1.0 / 9.0).abs() < 1e-4, "log Z = {log_z}, a corner has {corner}");
    let mixture = built_in("gaussian-mixture-40");
    let (log_z, _) = integrate(&mixture, 1.0, [-50.0, 50.0, -50.0, 50.0], 600, |_, _| true);
    assert!(log_z.abs() < 1e-6, "log Z = {log_z}");
    let GaussianMixture { means, standard_deviation } = GaussianMixture::forty();
    let mean = |axis: usize| means.iter().map(|m| m[axis]).sum::<f64>() / 40.0;
    assert!((mean(0) + 2.14051).abs() < 1e-5 && (mean(1) - 1.24004).abs() < 1e-5);
    let variance = |axis: usize| {
        means.iter().map(|m| (m[axis] - mean(axis)).powi(2)).sum::<f64>() / 40.0 + standard_deviation.powi(2)
    };
    assert!((variance(0) - 441.8165).abs() < 1e-3 && (variance(1) - 623.4340).abs() < 1e-3);
}

/// The funnel's density is one of x₀ times one of the others: log p at points where both are known, and, in two dimensions,
/// its integral and the share of its neck.
#[test]
fn the_funnel_is_a_normalised_density() {
    let normal = |x: f64, variance: f64| -0.5 * (x * x / variance + (2.0 * std::f64::consts::PI * variance).ln());
    let mut x = vec![2.0];
    x.extend((1..10).map(|i| 0.7 * f64::from(i)));
    let log_p = normal(2.0, 9.0) + x[1..].iter().map(|&x| normal(x, 2f64.exp())).sum::<f64>();
    assert!((energies(&built_in("funnel-10"), &x)[0] + log_p).abs() < 1e-12);
    let narrow = AnalyticPotential::Funnel(Funnel { standard_deviation: 1.0, dimension: 2 });
    let narrow = System::build(SystemDefinition::Analytic(narrow)).unwrap();
    let (log_z, neck) = integrate(&narrow, 1.0, [-5.0, 5.0, -60.0, 60.0], 2400, |x, _| x < -1.0);
    assert!(log_z.abs() < 2e-6, "log Z = {log_z}");
    assert!((neck - 0.158655).abs() < 2e-4, "{neck} of it has x < −1");
}

/// What the service says of a potential is what it makes the same potential of.
#[test]
fn messages_of_potentials_are_whole() {
    for name in AnalyticPotential::BUILT_IN {
        let potential = AnalyticPotential::built_in(name).unwrap();
        let message = Definition::Analytic(analytic_message(&potential));
        assert_eq!(system_definition(Some(&message)).unwrap(), SystemDefinition::Analytic(potential), "{name}");
    }
}

#[test]
fn what_cannot_be_a_funnel_is_refused() {
    let refused = |funnel| {
        let definition = SystemDefinition::Analytic(AnalyticPotential::Funnel(funnel));
        System::build(definition).unwrap_err().to_string()
    };
    assert!(refused(Funnel { standard_deviation: 0.0, dimension: 10 }).contains("standard_deviation is 0"));
    assert!(refused(Funnel { standard_deviation: f64::NAN, dimension: 10 }).contains("standard_deviation"));
    assert!(refused(Funnel { standard_deviation: 3.0, dimension: 1 }).contains("dimension is 1"));
}

/// An expression with more named parts than a tag has attributes, and a bond of 64 particles.
#[test]
fn long_definitions_are_read() {
    let definitions: String = (0..70).map(|k| format!("a{k}=1.001*a{};", k + 1)).collect();
    let xml = format!(
        "<System version=\"1\"><Particles><Particle mass=\"1\"/><Particle mass=\"1\"/></Particles><Constraints/><Forces>\
         <Force type=\"CustomBondForce\" version=\"3\" energy=\"a0*r;{definitions}a70=2\"><PerBondParameters/>\
         <GlobalParameters/><Bonds><Bond p1=\"0\" p2=\"1\"/></Bonds></Force></Forces></System>"
    );
    let system = System::build(SystemDefinition::OpenMm { system_xml: xml, topology_pdb: None }).unwrap();
    let mut energy = [0.0];
    system.potential().evaluate(&[0.0, 0.0, 0.0, 0.0, 0.0, 0.5], &mut energy, None).unwrap();
    assert!((energy[0] - 1.001f64.powi(70)).abs() < 1e-12);
}

/// A term in which a particle is named twice, and a name with a prime.
#[test]
fn compound_bonds_may_name_a_particle_twice() {
    let xml = "<System version=\"1\"><Particles><Particle mass=\"1\"/><Particle mass=\"1\"/></Particles><Constraints/><Forces>\
               <Force type=\"CustomCompoundBondForce\" version=\"3\" particles=\"3\" \
               energy=\"a'*distance(p1,p2)+distance(p1,p3);a'=2\"><PerBondParameters/><GlobalParameters/><Functions/><Bonds>\
               <Bond p1=\"0\" p2=\"1\" p3=\"1\"/></Bonds></Force></Forces></System>";
    let system = System::build(SystemDefinition::OpenMm { system_xml: xml.into(), topology_pdb: None }).unwrap();
    let (mut energy, mut gradient) = ([0.0], [0.0; 6]);
    system.potential().evaluate(&[0.0, 0.0, 0.0, 0.0, 0.0, 0.5], &mut energy, Some(&mut gradient)).unwrap();
    assert!((energy[0] - 1.5).abs() < 1e-12);
    assert!((gradient[5] - 3.0).abs() < 1e-12 && (gradient[2] + 3.0).abs() < 1e-12);
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let harmonic =
        AnalyticPotential::Harmonic(Harmonic { stiffness: vec![0.5, 2.0, 8.0], centre: vec![1.0, -2.0, 0.25] });
    let extra = AnalyticPotential::MullerBrown(MullerBrown { scale: 0.1, dimension: 4 });
    let mut systems: Vec<System> = AnalyticPotential::BUILT_IN.iter().map(|name| built_in(name)).collect();
    for potential in [harmonic, extra] {
        systems.push(System::build(SystemDefinition::Analytic(potential)).unwrap());
    }
    let mut digests: Vec<&str> = systems.iter().map(|s| s.digest()).collect();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), systems.len(), "two systems have one digest");
    for (s, system) in systems.iter().enumerate() {
        let d = system.dimension();
        for trial in 0..20 {
            let mut random = Randoms::new(s as u64, Purpose::Validation, trial);
            let mut x: Vec<f64> = (0..d).map(|_| 1.2 * random.normal()).collect();
            if let SystemDefinition::Analytic(potential) = system.definition()
                && potential.particle_symmetry().is_some()
            {
                // Particles at random overlap.
                x.iter_mut().zip(potential.start()).for_each(|(x, start)| *x = 0.05 * *x + 1.1 * start);
            }
            let mut gradient = vec![0.0; d];
            let mut energy = [0.0];
            system.potential().evaluate(&x, &mut energy, Some(&mut gradient)).unwrap();
            assert_eq!(energy[0], energies(system, &x)[0]);
            for k in 0..d {
                let at = |h: f64| {
                    let mut x = x.clone();
                    x[k] += h;
                    energies(system, &x)[0]
                };
                let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
                let scale = 1.0 + numeric.abs();
                assert!((numeric - gradient[k]).abs() < 1e-5 * scale, "{}: {k}", system.potential().term_names()[0]);
            }
        }
    }
}
