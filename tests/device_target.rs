//! Targets, latents and weights on a CUDA device, held against the CPU's; nothing where there is no device.
#![cfg(feature = "cuda")]

use boltzflow::coords::cuda::{DeviceTarget, Regularisation};
use boltzflow::coords::{ReducedTarget, choose_coordinates};
use boltzflow::energy::analytic::AnalyticPotential;
use boltzflow::energy::{System, SystemDefinition};
use boltzflow::flow::cuda::DevicePrior;
use boltzflow::flow::{LatentAddress, Prior, PriorComponent};
use boltzflow::math::{Purpose, Randoms};
use candle_core::{Device, Tensor};

const N: usize = 777;

fn targets() -> Vec<(String, ReducedTarget, f64)> {
    let analytic = AnalyticPotential::BUILT_IN
        .iter()
        .map(|name| (name.to_string(), SystemDefinition::Analytic(AnalyticPotential::built_in(name).unwrap()), 1.3));
    let molecules = ["alanine-dipeptide-obc1", "alanine-dipeptide-obc2", "ace-aaa-nme"].map(|name| {
        let folder = format!("{}/tests/data/openmm/{name}", env!("CARGO_MANIFEST_DIR"));
        let read = |file: &str| std::fs::read_to_string(format!("{folder}/{file}")).unwrap();
        let (system_xml, topology_pdb) = (read("system.xml"), Some(read("topology.pdb")));
        (name.to_string(), SystemDefinition::OpenMm { system_xml, topology_pdb }, 300.0)
    });
    let build = |(name, definition, temperature): (String, SystemDefinition, f64)| {
        let system = System::build(definition).unwrap();
        let coordinates = choose_coordinates(&system, None, temperature).unwrap();
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

/// That rows agree to rounding, as a part of each row's largest number, and are not finite in the same places.
fn agree(what: &str, device: &Tensor, cpu: &[f64]) {
    let device = device.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    assert_eq!(device.len(), cpu.len(), "{what}");
    let width = cpu.len() / N;
    for (r, (a, b)) in device.chunks_exact(width).zip(cpu.chunks_exact(width)).enumerate() {
        let scale = b.iter().filter(|b| b.is_finite()).fold(1.0, |s: f64, b| s.max(b.abs()));
        for (a, b) in a.iter().zip(b) {
            let same =
                if b.is_finite() { (a - b).abs() <= 1e-10 * scale } else { a.to_bits() == b.to_bits() || a.is_nan() };
            assert!(same, "{what} of row {r}: {a} on the device, {b} on the CPU");
        }
    }
}

#[test]
fn targets_agree_with_the_cpu() {
    let Ok(device) = Device::new_cuda(0) else { return };
    let (high, largest) = (50.0, 1e4);
    let slope = |u: f64| {
        if u <= high {
            1.0
        } else if u <= largest {
            1.0 / (1.0 + u - high)
        } else {
            0.0
        }
    };
    for (name, target, temperature) in targets() {
        let d = target.dimension();
        let y = rows(d);
        let cpu = target.evaluate_with_gradient(&y, temperature, slope).unwrap();
        let on_device = DeviceTarget::new(&target, &device).unwrap().unwrap();
        let y = Tensor::from_vec(y, (N, d), &device).unwrap();
        let phi = Regularisation { high, largest };
        for batch in [on_device.evaluate(&y).unwrap(), on_device.evaluate_with_gradient(&y, temperature, phi).unwrap()]
        {
            agree(&format!("{name}: positions"), &batch.positions, &cpu.positions);
            agree(&format!("{name}: energy"), &batch.energies, &cpu.energies);
            agree(&format!("{name}: ladj"), &batch.ladj, &cpu.ladj);
            if let Some(gradients) = &batch.gradients {
                agree(&format!("{name}: gradient"), gradients, &cpu.gradients);
            }
        }
        let positions = Tensor::from_slice(&cpu.positions, (N, cpu.positions.len() / N), &device).unwrap();
        let (back, ladj) = on_device.to_coordinates(&positions).unwrap();
        let (cpu_back, cpu_ladj) = target.to_coordinates(&cpu.positions);
        agree(&format!("{name}: coordinates"), &back, &cpu_back);
        agree(&format!("{name}: ladj of coordinates"), &ladj, &cpu_ladj);
    }
}

#[test]
fn latents_are_those_of_the_cpu_to_the_bit() {
    let Ok(device) = Device::new_cuda(0) else { return };
    let mut components = vec![PriorComponent::Gaussian; 7];
    components[1] = PriorComponent::Uniform { low: -3.0, high: 2.5 };
    components[4] = PriorComponent::Uniform { low: -1.0, high: 1.0 };
    let prior = Prior::product(components);
    let (seed, purpose, tau, first) = (0x1234_5678_9abc_def0, Purpose::Pilot, 1.7, (1u64 << 32) - 300);
    let addresses: Vec<_> =
        (first..first + N as u64).map(|index| LatentAddress { seed, purpose, index, tau }).collect();
    let cpu = prior.sample(&addresses);
    let on_device = DevicePrior::new(&prior, &device).unwrap().unwrap();
    let (latents, log_probs) = on_device.sample(N, seed, purpose, first, tau).unwrap();
    let latents = latents.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    assert!(latents.iter().zip(&cpu).all(|(a, b)| a.to_bits() == b.to_bits()));
    let expected: Vec<f64> = cpu.chunks_exact(7).map(|z| prior.log_prob(z, tau)).collect();
    agree("log q", &log_probs, &expected);
}
