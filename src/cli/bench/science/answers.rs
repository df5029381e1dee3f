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
    ladder: &'static [f64],
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
        let simulated = match self.simulated.take().filter(|s| s.system == system.digest() && s.ladder == ladder) {
            Some(simulated) => simulated,
            None => {
                remark!("{}: replica exchange, for the reference", target.name);
                let temperatures = self.asked(system, ladder)?;
                let found = replica_exchange::references(system, regions, ladder, &temperatures, self.frames)?;
                let found = temperatures.into_iter().zip(found.into_iter().map(Rc::new)).collect();
                Simulated { system: system.digest().to_string(), ladder, found }
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
    use super::super::target::{Samples, TrainedOn};
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

    /// Two targets of DW4 with temperatures of their own: one simulation has those of both.
    #[test]
    fn what_has_been_simulated_is_not_simulated_again() {
        let dw4 = |temperatures| Target {
            name: "dw4",
            trained_at: 1.0,
            temperatures,
            regions: |_| None,
            references: References::ReplicaExchange(&[1.0, 1.5, 2.0]),
            trained_on: TrainedOn::Nothing,
            paths: None,
            published: &[],
        };
        let (cold, warm) = (dw4(&[1.0, 1.5]), dw4(&[1.5, 2.0]));
        let system = cold.system().unwrap();
        let frames = |reference: &Reference| match &reference.samples {
            Samples::Frames(frames) => frames.positions.clone(),
            _ => panic!("there are no frames"),
        };
        let mut alone = Answers::new(vec![&warm], 64);
        let alone = alone.of(&warm, &system, None).unwrap();
        let mut answers = Answers::new(vec![&cold, &warm], 64);
        let of_cold = answers.of(&cold, &system, None).unwrap();
        let of_warm = answers.of(&warm, &system, None).unwrap();
        assert!(Rc::ptr_eq(&of_cold[1], &of_warm[0]) && of_cold.len() == 2);
        assert!(of_warm.iter().zip(&alone).all(|(a, b)| frames(a) == frames(b)));
        assert_ne!(frames(&of_warm[0]), frames(&of_warm[1]));
    }
}
