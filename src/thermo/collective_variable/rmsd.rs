//! The distance from a reference after optimal superposition.

use super::points::{Points, add_at, at, mean};
use crate::math::superposition;
use nalgebra::{Matrix3, Vector3};

/// The most atoms of a reference.
const MOST_ATOMS: usize = 10_000;

/// The root mean square distance of atoms from a reference that was moved and turned to where it is least.
///
/// The rotation need not be unique: not where the atoms of either lie on a line, nor where the reference fits as well one way
/// round as another. The distance is then still one number, and has a kink; the gradient is that on one side of it.
#[derive(Debug)]
pub(super) struct Rmsd {
    atoms: Vec<usize>,
    /// About its mean, three numbers an atom.
    reference: Vec<f64>,
}

impl Rmsd {
    pub fn new(list: &[usize], reference: &[f64], points: &Points) -> Result<Self, String> {
        let atoms = points.listed(list)?;
        if atoms.len() < 2 {
            return Err("of a single atom it is always 0; name two atoms or more".into());
        }
        if atoms.len() > MOST_ATOMS {
            return Err(format!("it has {} atoms; at most {MOST_ATOMS} are allowed", atoms.len()));
        }
        let count = 3 * atoms.len();
        if reference.len() != count {
            let (found, atoms) = (reference.len(), atoms.len());
            return Err(format!("its reference has {found} numbers; {atoms} atoms need {count}, x, y and z of each"));
        }
        if let Some(k) = reference.iter().position(|x| !x.is_finite()) {
            return Err(format!(
                "its reference has {} for the atom at place {}; it must be finite",
                reference[k],
                k / 3
            ));
        }
        let reference = about_mean(reference.as_chunks::<3>().0.iter().copied());
        if reference.iter().all(|x| *x == 0.0) {
            return Err("all atoms of its reference are in one place; give their positions in nm".into());
        }
        if !reference.iter().map(|x| x * x).sum::<f64>().is_finite() {
            return Err("its reference is too large; give positions in nm".into());
        }
        Ok(Self { atoms, reference })
    }

    pub fn terms(&self) -> usize {
        self.atoms.len()
    }

    /// The rotation of the atoms onto the reference, and what is then between each of them and its place.
    fn residuals(&self, x: &[f64]) -> (Matrix3<f64>, Vec<Vector3<f64>>) {
        let x = about_mean(self.atoms.iter().map(|&atom| at(x, atom)));
        let turn = superposition(&x, &self.reference);
        let pairs = x.as_chunks::<3>().0.iter().zip(self.reference.as_chunks::<3>().0);
        (turn, pairs.map(|(x, c)| turn * Vector3::from(*x) - Vector3::from(*c)).collect())
    }

    pub fn value(&self, x: &[f64]) -> f64 {
        root_mean_square(&self.residuals(x).1)
    }

    /// The rotation is where the distance is least, so that its own change does not count.
    pub fn add_gradient(&self, x: &[f64], scale: f64, gradient: &mut [f64]) {
        let (turn, residuals) = self.residuals(x);
        let factor = scale / (residuals.len() as f64 * root_mean_square(&residuals));
        for (&atom, residual) in self.atoms.iter().zip(&residuals) {
            add_at(gradient, atom, factor, (turn.transpose() * residual).into());
        }
    }
}

fn root_mean_square(residuals: &[Vector3<f64>]) -> f64 {
    (residuals.iter().map(Vector3::norm_squared).sum::<f64>() / residuals.len() as f64).sqrt()
}

fn about_mean(points: impl ExactSizeIterator<Item = [f64; 3]> + Clone) -> Vec<f64> {
    let share = 1.0 / points.len() as f64;
    let mean = mean(points.clone().map(|x| (x, share)));
    points.flat_map(|x| [0, 1, 2].map(|k| x[k] - mean[k])).collect()
}
