//! Any bytes as a System XML: read or refused, and what is read has energies and gradients, without a panic.
#![no_main]

use boltzflow::energy::Potential;
use boltzflow::energy::openmm::read_system;
use libfuzzer_sys::fuzz_target;

/// Larger systems are as good as any, and slow.
const MOST_COORDINATES: usize = 300;

fuzz_target!(|text: &str| {
    let Ok(system) = read_system(text) else { return };
    let d = system.potential.dimension();
    if d > MOST_COORDINATES {
        return;
    }
    let positions: Vec<f64> = (0..2 * d).map(|k| 0.3 * (k as f64).sin() + 0.1 * k as f64).collect();
    let (mut energies, mut gradients) = ([0.0; 2], vec![0.0; 2 * d]);
    let evaluated = system.potential.evaluate(&positions, &mut energies, Some(&mut gradients));
    assert!(evaluated.is_ok(), "a system that was read cannot be evaluated: {evaluated:?}");
});
