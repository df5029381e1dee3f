//! Points in space that positions are made of.

use crate::energy::{System, SystemDefinition, analytic::ParticleSymmetry};

/// The points of a configuration: three coordinates each, one point after the other.
#[derive(Debug)]
pub(super) struct Points {
    pub count: usize,
    /// Empty where the system knows none; then all points weigh the same.
    masses: Vec<f64>,
}

impl Points {
    /// The atoms of a system, or the particles of one in three dimensions; nothing if it has neither.
    pub fn of(system: &System) -> Option<Self> {
        if let Some(count) = system.atoms() {
            return Some(Self { count, masses: system.masses().to_vec() });
        }
        let SystemDefinition::Analytic(potential) = system.definition() else { return None };
        match potential.particle_symmetry()? {
            ParticleSymmetry::Translation { space: 3 } | ParticleSymmetry::Exchange { space: 3, .. } => {
                Some(Self { count: system.dimension() / 3, masses: Vec::new() })
            }
            _ => None,
        }
    }

    /// The mass of a point.
    pub fn mass(&self, point: usize) -> f64 {
        self.masses.get(point).copied().unwrap_or(1.0)
    }

    /// The points of a list, or all if it is empty; or what is wrong with the list.
    pub fn listed(&self, list: &[usize]) -> Result<Vec<usize>, String> {
        if list.is_empty() {
            return Ok((0..self.count).collect());
        }
        self.check(list)?;
        Ok(list.to_vec())
    }

    /// That points exist and are named once.
    pub fn check(&self, list: &[usize]) -> Result<(), String> {
        if let Some(point) = list.iter().find(|&&point| point >= self.count) {
            return Err(format!(
                "there is no atom {point}; the system has atoms 0 to {}",
                self.count.saturating_sub(1)
            ));
        }
        let mut sorted = list.to_vec();
        sorted.sort_unstable();
        match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("an atom is named twice: {}", pair[0])),
            None => Ok(()),
        }
    }
}

/// The position of a point.
pub(super) fn at(x: &[f64], point: usize) -> [f64; 3] {
    [x[3 * point], x[3 * point + 1], x[3 * point + 2]]
}

/// Adds s·v to a point's gradient.
pub(super) fn add_at(gradient: &mut [f64], point: usize, s: f64, v: [f64; 3]) {
    gradient[3 * point..3 * point + 3].iter_mut().zip(v).for_each(|(g, v)| *g += s * v);
}

/// The mean of points, by weights that sum to 1.
pub(super) fn mean(points: impl Iterator<Item = ([f64; 3], f64)>) -> [f64; 3] {
    points.fold([0.0; 3], |mean, (x, weight)| [0, 1, 2].map(|k| mean[k] + weight * x[k]))
}
