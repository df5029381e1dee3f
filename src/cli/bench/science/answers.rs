//! The references of targets, simulated once for all that are of one system.

use super::super::super::client::CliError;
use super::replica_exchange;
use super::target::{Reference, References, Regions, Target};
use crate::energy::System;
use std::rc::Rc;

/// What is known of the targets of a run.
pub(super) struct Answers<'a> {
    targets: Vec<&'a Target>,
    /// Frames of each temperature, where they take a simulation.
    frames: usize,
    /// The last simulation.
    simulated: Option<Simulated>,
}

/// What a simulation has found, at all temperatures that any target of its system asks for.
struct Simulated {
    /// The digest of the system.
    system: String,
    found: Vec<(f64, Rc<Reference>)>,
}

impl<'a> Answers<'a> {
    pub fn new(targets: Vec<&'a Target>, frames: usize) -> Self {
        Self { targets, frames, simulated: None }
    }

    /// What is known of one of the targets at each of its temperatures.
    pub fn of(
        &mut self,
        target: &Target,
        system: &System,
        regions: Option<&Regions>,
    ) -> Result<Vec<Rc<Reference>>, CliError> {
        let ladder = match target.references {
            References::Exact(reference) => {
                let at = target.temperatures.iter().map(|&t| reference(system, regions, t).map(Rc::new));
                return at.collect();
            }
            References::ReplicaExchange(ladder) => ladder,
        };
        let simulated = match self.simulated.take().filter(|s| s.system == system.digest()) {
            Some(simulated) => simulated,
            None => {
                remark!("{}: replica exchange, for the reference", target.name);
                let temperatures = self.asked(system, ladder)?;
                let found = replica_exchange::references(system, regions, ladder, &temperatures, self.frames)?;
                let found = temperatures.into_iter().zip(found.into_iter().map(Rc::new)).collect();
                Simulated { system: system.digest().to_string(), found }
            }
        };
        let at = |temperature: &f64| {
            let found =
                simulated.found.iter().find(|(t, _)| t == temperature).map(|(_, reference)| Rc::clone(reference));
            found.ok_or_else(|| CliError::failed(format!("{}: {temperature} was not simulated", target.name)))
        };
        let references = target.temperatures.iter().map(at).collect();
        self.simulated = Some(simulated);
        references
    }

    /// The temperatures of a ladder that targets of a system ask for.
    fn asked(&self, system: &System, ladder: &[f64]) -> Result<Vec<f64>, CliError> {
        let mut temperatures: Vec<f64> = Vec::new();
        for target in &self.targets {
            let References::ReplicaExchange(of_target) = target.references else { continue };
            if of_target == ladder && target.system()?.digest() == system.digest() {
                temperatures.extend(target.temperatures);
            }
        }
        temperatures.sort_by(f64::total_cmp);
        temperatures.dedup();
        Ok(temperatures)
    }
}

#[cfg(test)]
mod tests {
    use super::super::targets::TARGETS;
    use super::*;

    /// Targets of one system share a simulation, so that they have to ask for the same regions of it and the same ladder.
    #[test]
    fn targets_of_one_system_have_the_same_regions() {
        let of = |target: &Target| {
            let system = target.system().unwrap();
            let regions = (target.regions)(&system).map(|r| (r.kind, r.sets, r.regions));
            (system.digest().to_string(), regions)
        };
        for a in &TARGETS {
            for b in &TARGETS {
                if let (References::ReplicaExchange(x), References::ReplicaExchange(y)) = (&a.references, &b.references)
                    && of(a).0 == of(b).0
                {
                    assert!(of(a) == of(b) && x == y, "{} and {}", a.name, b.name);
                }
            }
        }
    }

    /// DW4's reference is simulated once, however often it is asked for.
    #[test]
    fn what_has_been_simulated_is_not_simulated_again() {
        let target = TARGETS.iter().find(|t| t.name == "dw4").unwrap();
        let system = target.system().unwrap();
        let mut answers = Answers::new(vec![target, target], 64);
        let first = answers.of(target, &system, None).unwrap();
        let second = answers.of(target, &system, None).unwrap();
        assert!(first.iter().zip(&second).all(|(a, b)| Rc::ptr_eq(a, b)));
        assert_eq!(first.len(), target.temperatures.len());
    }
}
