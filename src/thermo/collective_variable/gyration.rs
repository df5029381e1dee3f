//! The radius of gyration.

use super::points::{Points, add_at, at, mean};

/// The root of the mass-weighted mean square distance of atoms from their centre of mass.
#[derive(Debug)]
pub(super) struct Gyration {
    /// With the share of each in the mass.
    atoms: Vec<(usize, f64)>,
}

impl Gyration {
    pub fn new(list: &[usize], points: &Points) -> Result<Self, String> {
        let atoms = points.listed(list)?;
        if atoms.len() < 2 {
            return Err("of a single atom it is always 0; name two atoms or more".into());
        }
        let total: f64 = atoms.iter().map(|&atom| points.mass(atom)).sum();
        if !(total > 0.0 && total.is_finite()) {
            return Err(format!("its atoms have a mass of {total} together; give them masses in the System XML"));
        }
        Ok(Self { atoms: atoms.into_iter().map(|atom| (atom, points.mass(atom) / total)).collect() })
    }

    pub fn terms(&self) -> usize {
        self.atoms.len()
    }

    fn centre(&self, x: &[f64]) -> [f64; 3] {
        mean(self.atoms.iter().map(|&(atom, share)| (at(x, atom), share)))
    }

    pub fn value(&self, x: &[f64]) -> f64 {
        let centre = self.centre(x);
        let square = |atom| at(x, atom).iter().zip(centre).map(|(x, c)| (x - c) * (x - c)).sum::<f64>();
        self.atoms.iter().map(|&(atom, share)| share * square(atom)).sum::<f64>().sqrt()
    }

    pub fn add_gradient(&self, x: &[f64], scale: f64, gradient: &mut [f64]) {
        let (centre, value) = (self.centre(x), self.value(x));
        for &(atom, share) in &self.atoms {
            let x = at(x, atom);
            add_at(gradient, atom, scale * share / value, [0, 1, 2].map(|k| x[k] - centre[k]));
        }
    }
}
