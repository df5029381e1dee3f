//! Any text as the energy of a CustomCompoundBondForce, in which everything that the language has may be used.
#![no_main]

use boltzflow::energy::Potential;
use boltzflow::energy::openmm::read_system;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|energy: &str| {
    let escaped: String = energy
        .chars()
        .map(|c| match c {
            '<' => "&lt;".into(),
            '&' => "&amp;".into(),
            '"' => "&quot;".into(),
            c => c.to_string(),
        })
        .collect();
    let particles = "<Particle mass=\"1\"/>".repeat(4);
    let xml = format!(
        "<System version=\"1\"><Particles>{particles}</Particles><Constraints/><Forces><Force version=\"3\" \
         type=\"CustomCompoundBondForce\" particles=\"4\" energy=\"{escaped}\"><PerBondParameters><Parameter name=\"k\"/>\
         </PerBondParameters><GlobalParameters><Parameter default=\"2\" name=\"g\"/></GlobalParameters><Bonds>\
         <Bond p1=\"0\" p2=\"1\" p3=\"2\" p4=\"3\" param1=\"1.5\"/></Bonds><Functions><Function \
         type=\"Continuous1DFunction\" name=\"f\" min=\"0\" max=\"1\" periodic=\"0\"><Values><Value v=\"1\"/><Value \
         v=\"3\"/><Value v=\"2\"/></Values></Function></Functions></Force></Forces></System>"
    );
    match read_system(&xml) {
        Ok(system) => {
            let positions: Vec<f64> = (0..24).map(|k| 0.3 * f64::from(k).sin() + 0.02 * f64::from(k)).collect();
            let (mut energies, mut gradients) = ([0.0; 2], [0.0; 24]);
            let evaluated = system.potential.evaluate(&positions, &mut energies, Some(&mut gradients));
            assert!(evaluated.is_ok(), "what was read cannot be evaluated: {evaluated:?}");
        }
        Err(error) => assert!(error.to_string().len() < 2000, "an error without an end: {error}"),
    }
});
