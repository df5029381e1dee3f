//! The device's code for targets, latents and the optimizer, held against the Rust code: compiled for this machine, and on a CUDA device
//! where there is one. Without a C++ compiler or a device there is nothing to test.

use boltzflow::compute::adam::{Account, AdamStep, Tally, adam_step};
use boltzflow::coords::{CoordinateChoice, ReducedTarget, choose_coordinates};
use boltzflow::energy::analytic::AnalyticPotential;
use boltzflow::energy::{System, SystemDefinition};
use boltzflow::flow::{LatentAddress, Prior, PriorComponent};
use boltzflow::math::{Purpose, Randoms};
use candle_core::{Device, Tensor, Var};
use std::path::Path;
use std::process::Command;

const N: usize = 777;

fn targets() -> Vec<(String, ReducedTarget, f64)> {
    // Particles and the funnel have no code for the device.
    let analytic = AnalyticPotential::BUILT_IN
        .iter()
        .map(|name| (name.to_string(), AnalyticPotential::built_in(name).unwrap()))
        .filter(|(_, potential)| potential.particle_symmetry().is_none())
        .filter(|(_, potential)| !matches!(potential, AnalyticPotential::Funnel(_)))
        .map(|(name, potential)| (name, SystemDefinition::Analytic(potential), 1.3));
    let molecules =
        ["alanine-dipeptide-obc1", "alanine-dipeptide-obc2", "alanine-dipeptide-rb", "ace-aaa-nme"].map(|name| {
            let folder = format!("{}/tests/data/openmm/{name}", env!("CARGO_MANIFEST_DIR"));
            let read = |file: &str| std::fs::read_to_string(format!("{folder}/{file}")).unwrap();
            let (system_xml, topology_pdb) = (read("system.xml"), Some(read("topology.pdb")));
            (name.to_string(), SystemDefinition::OpenMm { system_xml, topology_pdb }, 300.0)
        });
    let build = |(name, definition, temperature): (String, SystemDefinition, f64)| {
        let system = System::build(definition).unwrap();
        let coordinates = choose_coordinates(&system, None, temperature, &CoordinateChoice::Automatic).unwrap();
        (name, ReducedTarget::new(system, coordinates), temperature)
    };
    analytic.chain(molecules).map(build).collect()
}

/// Rows near to the middle, and every fourth far from it, some of them outside of the domain.
fn rows(d: usize) -> Vec<f64> {
    let mut y = vec![0.0; N * d];
    for (r, row) in y.chunks_exact_mut(d).enumerate() {
        let mut random = Randoms::new(3, Purpose::Validation, r as u64);
        let width = if r % 4 == 3 { 6.0 } else { 0.3 };
        row.iter_mut().for_each(|y| *y = width * random.normal());
    }
    y
}

/// The regularisation of high energies, in kT.
const HIGH: f64 = 50.0;
const LARGEST: f64 = 1e4;

fn slope(u: f64) -> f64 {
    if u <= HIGH {
        1.0
    } else if u <= LARGEST {
        1.0 / (1.0 + u - HIGH)
    } else {
        0.0
    }
}

const SEED: u64 = 0x1234_5678_9abc_def0;
const FIRST: u64 = (1 << 32) - 300;
const TAU: f64 = 1.7;

fn prior() -> Prior {
    let mut components = vec![PriorComponent::Gaussian; 7];
    components[1] = PriorComponent::Uniform { low: -3.0, high: 2.5 };
    components[4] = PriorComponent::Uniform { low: -1.0, high: 1.0 };
    Prior::product(components)
}

/// Latents (N, 7) and their log q (N).
fn latents() -> (Vec<f64>, Vec<f64>) {
    let address = |index| LatentAddress { seed: SEED, purpose: Purpose::Pilot, index, tau: TAU };
    let z = prior().sample(&(FIRST..FIRST + N as u64).map(address).collect::<Vec<_>>());
    let log_probs = z.chunks_exact(7).map(|z| prior().log_prob(z, TAU)).collect();
    (z, log_probs)
}

/// That rows agree to rounding, as a part of each row's largest number, and are not finite in the same places.
fn agree(what: &str, device: &[f64], cpu: &[f64]) {
    assert_eq!(device.len(), cpu.len(), "{what}");
    let width = cpu.len() / N;
    for (r, (a, b)) in device.chunks_exact(width).zip(cpu.chunks_exact(width)).enumerate() {
        let scale = b.iter().filter(|b| b.is_finite()).fold(1.0, |s: f64, b| s.max(b.abs()));
        for (a, b) in a.iter().zip(b) {
            let same = if b.is_finite() { (a - b).abs() <= 1e-10 * scale } else { a == b || a.is_nan() && b.is_nan() };
            assert!(same, "{what} of row {r}: {a} by the device's code, {b} by the CPU's");
        }
    }
}

fn same_bits(device: &[f64], cpu: &[f64]) {
    assert_eq!(device.len(), cpu.len());
    assert!(device.iter().zip(cpu).all(|(a, b)| a.to_bits() == b.to_bits()));
}

/// Arrays of numbers, each with its length before it.
#[derive(Default)]
struct Input(Vec<u8>);

impl Input {
    fn array<const BYTES: usize>(mut self, numbers: impl ExactSizeIterator<Item = [u8; BYTES]>) -> Self {
        self.0.extend((numbers.len() as u64).to_le_bytes());
        numbers.for_each(|bytes| self.0.extend(bytes));
        self
    }

    fn integers(self, numbers: &[u32]) -> Self {
        self.array(numbers.iter().map(|n| n.to_le_bytes()))
    }

    fn numbers(self, numbers: &[f64]) -> Self {
        self.array(numbers.iter().map(|n| n.to_le_bytes()))
    }

    /// What the program says to it.
    fn run(self, program: &Path, mode: &str) -> Vec<f64> {
        let file = |end: &str| program.with_extension(end);
        std::fs::write(file("in"), self.0).unwrap();
        assert!(Command::new(program).arg(mode).arg(file("in")).arg(file("out")).status().unwrap().success());
        let bytes = std::fs::read(file("out")).unwrap();
        bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
    }
}

/// The device's code compiled for this machine, if there is a compiler. Latents forbid that products and sums be fused.
fn compiled(folder: &Path) -> Option<std::path::PathBuf> {
    let root = env!("CARGO_MANIFEST_DIR");
    let program = folder.join("device_code");
    let mut command = Command::new("c++");
    command.args(["-std=c++17", "-O1", "-ffp-contract=off", "-I"]).arg(format!("{root}/src"));
    let status = command.arg(format!("{root}/tests/device_code/main.cpp")).arg("-o").arg(&program).status();
    let Ok(status) = status else {
        eprintln!("skipped: there is no c++ to compile the device's code with");
        return None;
    };
    assert!(status.success(), "the device's code does not compile");
    Some(program)
}

#[test]
fn the_code_of_targets_agrees() {
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = compiled(folder.path()) else { return };
    for (name, target, temperature) in targets() {
        let (potential, transform) = (target.system().potential(), target.coordinates());
        let (potential, transform) = (potential.tables().unwrap(), transform.tables().unwrap());
        let (d, dx) = (target.dimension(), transform.position_dimension());
        let y = rows(d);
        let beta = 1.0 / target.system().scale().kt(temperature);
        let input = Input::default().integers(potential.integers()).numbers(potential.numbers());
        let input = input.integers(transform.integers()).numbers(transform.numbers());
        let out = input.numbers(&[beta, HIGH, LARGEST]).numbers(&y).run(&program, "target");
        let cpu = target.evaluate_with_gradient(&y, |_| temperature, slope).unwrap();
        let (back, ladj_back) = target.to_coordinates(&cpu.positions);
        let mut start = 0;
        let mut check = |what: &str, width: usize, cpu: &[f64]| {
            let columns = out.chunks_exact(dx + 2 * d + 4).flat_map(|row| &row[start..start + width]);
            agree(&format!("{name}: {what}"), &columns.copied().collect::<Vec<_>>(), cpu);
            start += width;
        };
        check("positions", dx, &cpu.positions);
        check("ladj", 1, &cpu.ladj);
        check("energy", 1, &cpu.energies);
        check("energy without gradient", 1, &cpu.energies);
        check("gradient", d, &cpu.gradients);
        check("coordinates", d, &back);
        check("ladj of coordinates", 1, &ladj_back);
    }
}

#[test]
fn the_code_of_latents_gives_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = compiled(folder.path()) else { return };
    let row = |component: &PriorComponent| match component {
        PriorComponent::Gaussian => [0.0; 3],
        PriorComponent::Uniform { low, high } => [*low, high - low, -(high - low).ln()],
    };
    let components: Vec<f64> = prior().components().iter().flat_map(row).collect();
    let address = [SEED, Purpose::Pilot as u64, FIRST, N as u64];
    let constant = -0.5 * (TAU.ln() + (2.0 * std::f64::consts::PI).ln());
    let input = Input::default().array(address.iter().map(|n| n.to_le_bytes())).numbers(&components);
    let out = input.numbers(&[TAU.sqrt(), constant]).run(&program, "latents");
    let column =
        |from: usize, to: usize| out.chunks_exact(8).flat_map(|row| &row[from..to]).copied().collect::<Vec<_>>();
    let (z, log_probs) = latents();
    same_bits(&column(0, 7), &z);
    agree("log q", &column(7, 8), &log_probs);
}

/// Of four steps the third has a gradient that is not finite, and the last one that is longer than it may be.
#[test]
fn the_code_of_the_optimizer_agrees() {
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = compiled(folder.path()) else { return };
    let step = AdamStep { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, learning_rate: 1e-2, clip: 40.0 };
    let mut random = Randoms::new(7, Purpose::Validation, 0);
    let mut draw = |scale: f64| -> Vec<f64> { (0..N).map(|_| scale * random.normal()).collect() };
    let weights = draw(1.0);
    let mut gradients = [1.0, 1.0, 1.0, 10.0].map(&mut draw);
    gradients[2][5] = f64::INFINITY;
    let constants = [step.beta1, step.beta2, step.epsilon, step.learning_rate, step.clip];
    let input = Input::default().numbers(&constants).numbers(&weights).numbers(&gradients.concat());
    let out = input.run(&program, "adam");

    let tensor = |numbers: &[f64]| Tensor::from_slice(numbers, N, &Device::Cpu).unwrap();
    let variables = [Var::from_tensor(&tensor(&weights)).unwrap()];
    let mut moments = [(tensor(&[0.0; N]), tensor(&[0.0; N]))];
    let mut account = Account::new(Tally::default(), &Device::Cpu).unwrap();
    for gradient in &gradients {
        adam_step(&variables, &[Some(tensor(gradient))], &mut moments, &mut account, &step).unwrap();
    }
    let tally = account.read().unwrap();
    for (k, cpu) in [variables[0].as_tensor(), &moments[0].0, &moments[0].1].into_iter().enumerate() {
        agree("weights and moments", &out[k * N..(k + 1) * N], &cpu.to_vec1::<f64>().unwrap());
    }
    let counts = [tally.updates, tally.skipped, tally.in_a_row, tally.most_in_a_row].map(|count| count as f64);
    assert_eq!(out[3 * N + 1..], counts);
    assert_eq!(counts, [3.0, 1.0, 0.0, 1.0]);
    assert!((out[3 * N] / tally.gradient_norm - 1.0).abs() < 1e-12);
}

#[cfg(feature = "cuda")]
mod on_a_device {
    use super::*;
    use boltzflow::coords::cuda::{DeviceTarget, Regularisation};
    use boltzflow::flow::cuda::DevicePrior;

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn targets_agree() {
        let Ok(device) = Device::new_cuda_with_stream(0) else {
            eprintln!("skipped: there is no CUDA device");
            return;
        };
        for (name, target, temperature) in targets() {
            let d = target.dimension();
            let y = rows(d);
            let cpu = target.evaluate_with_gradient(&y, |_| temperature, slope).unwrap();
            let on_device = DeviceTarget::new(&target, &device).unwrap().unwrap();
            let y = Tensor::from_vec(y, (N, d), &device).unwrap();
            let phi = Regularisation { high: HIGH, largest: LARGEST };
            let with_gradient = on_device.evaluate_with_gradient(&y, &[temperature; N], phi).unwrap();
            for batch in [on_device.evaluate(&y).unwrap(), with_gradient] {
                agree(&format!("{name}: positions"), &numbers(&batch.positions), &cpu.positions);
                agree(&format!("{name}: energy"), &numbers(&batch.energies), &cpu.energies);
                agree(&format!("{name}: ladj"), &numbers(&batch.ladj), &cpu.ladj);
                if let Some(gradients) = &batch.gradients {
                    agree(&format!("{name}: gradient"), &numbers(gradients), &cpu.gradients);
                }
            }
            let positions = Tensor::from_slice(&cpu.positions, (N, cpu.positions.len() / N), &device).unwrap();
            let (back, ladj) = on_device.to_coordinates(&positions).unwrap();
            let (cpu_back, cpu_ladj) = target.to_coordinates(&cpu.positions);
            agree(&format!("{name}: coordinates"), &numbers(&back), &cpu_back);
            agree(&format!("{name}: ladj of coordinates"), &numbers(&ladj), &cpu_ladj);
        }
    }

    #[test]
    fn latents_have_the_same_bits() {
        let Ok(device) = Device::new_cuda_with_stream(0) else {
            eprintln!("skipped: there is no CUDA device");
            return;
        };
        let on_device = DevicePrior::new(&prior(), &device).unwrap().unwrap();
        let (z, log_probs) = on_device.sample(N, SEED, Purpose::Pilot, FIRST, TAU).unwrap();
        let (cpu, cpu_log_probs) = latents();
        same_bits(&numbers(&z), &cpu);
        agree("log q", &numbers(&log_probs), &cpu_log_probs);
    }
}
