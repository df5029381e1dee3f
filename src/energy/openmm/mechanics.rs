//! The sum of a system's forces as a potential.

use super::angles::HarmonicAngles;
use super::bonds::HarmonicBonds;
use super::born::GeneralizedBorn;
use super::lanes::{Lanes, WIDTH};
use super::nonbonded::Nonbonded;
use super::torsions::PeriodicTorsions;
use super::workspace::Workspace;
use crate::compute::fused::{InstructionSet, Kernel, dispatch};
use crate::energy::potential::{EnergyError, Potential, check_batch};
use crate::energy::tables::{ForceKind, ForceTables, PotentialTables};
use rayon::prelude::*;

/// Groups of [`WIDTH`] configurations handled by one thread at a time.
const GROUPS_PER_TASK: usize = 4;

/// The potential energy of an OpenMM System, in kJ/mol for positions in nm.
///
/// The numbers of a configuration are the same in any batch, on any number of threads, and whatever the width of the machine's vectors.
#[derive(Debug)]
pub struct MolecularMechanics {
    atoms: usize,
    terms: Vec<Term>,
    bonds: Vec<(usize, usize)>,
}

/// A force and the name that OpenMM knows it by.
#[derive(Debug)]
pub(super) struct Term {
    pub name: String,
    pub force: Force,
}

#[derive(Debug)]
pub(super) enum Force {
    Bonds(HarmonicBonds),
    Angles(HarmonicAngles),
    Torsions(PeriodicTorsions),
    Nonbonded(Nonbonded),
    Born(GeneralizedBorn),
    /// A force that acts on velocities only.
    None,
}

impl Force {
    fn tables(&self) -> (ForceKind, ForceTables) {
        match self {
            Self::Bonds(force) => (ForceKind::Bonds, force.tables()),
            Self::Angles(force) => (ForceKind::Angles, force.tables()),
            Self::Torsions(force) => (ForceKind::Torsions, force.tables()),
            Self::Nonbonded(force) => (ForceKind::Nonbonded, force.tables()),
            Self::Born(force) => (ForceKind::Born, force.tables()),
            Self::None => (ForceKind::None, ForceTables::default()),
        }
    }
}

impl Term {
    /// The pairs of atoms that a harmonic bond joins, the smaller index first.
    pub fn bonds(&self) -> Vec<(usize, usize)> {
        match &self.force {
            Force::Bonds(bonds) => bonds.pairs().map(|[i, j]| (i.min(j) as usize, i.max(j) as usize)).collect(),
            _ => Vec::new(),
        }
    }
}

impl MolecularMechanics {
    pub(super) fn new(atoms: usize, terms: Vec<Term>, bonds: Vec<(usize, usize)>) -> Self {
        Self { atoms, terms, bonds }
    }

    /// The pairs of atoms that a harmonic bond or a constraint joins: the smaller index first, sorted, each once.
    pub fn bonds(&self) -> Vec<(usize, usize)> {
        self.bonds.clone()
    }

    fn workspace(&self) -> Workspace {
        let born = self.terms.iter().find_map(|term| match &term.force {
            Force::Born(born) => Some((self.atoms, born.kept_pairs())),
            _ => None,
        });
        let (born_atoms, born_pairs) = born.unwrap_or_default();
        Workspace::new(self.atoms, self.terms.len(), born_atoms, born_pairs)
    }

    /// Energies of the terms, and the gradient of their sum, of the configurations that the workspace has loaded.
    fn run<const GRADIENT: bool>(&self, workspace: &mut Workspace) {
        dispatch(Evaluation::<GRADIENT> { mechanics: self, workspace });
    }
}

struct Evaluation<'a, const GRADIENT: bool> {
    mechanics: &'a MolecularMechanics,
    workspace: &'a mut Workspace,
}

impl<const GRADIENT: bool> Kernel for Evaluation<'_, GRADIENT> {
    type Output = ();

    #[inline(always)]
    fn run<I: InstructionSet>(self) {
        let Workspace { at, gradient, energies, born: scratch, .. } = self.workspace;
        for (term, energy) in self.mechanics.terms.iter().zip(energies) {
            *energy = match &term.force {
                Force::Bonds(bonds) => bonds.evaluate::<GRADIENT>(at, gradient),
                Force::Angles(angles) => angles.evaluate::<GRADIENT>(at, gradient),
                Force::Torsions(torsions) => torsions.evaluate::<GRADIENT>(at, gradient),
                Force::Nonbonded(nonbonded) => nonbonded.evaluate::<GRADIENT>(at, gradient),
                Force::Born(born) => born.evaluate::<GRADIENT>(at, gradient, scratch),
                Force::None => Lanes::ZERO,
            };
        }
    }
}

impl Potential for MolecularMechanics {
    fn dimension(&self) -> usize {
        3 * self.atoms
    }

    fn evaluate(
        &self,
        positions: &[f64],
        energies: &mut [f64],
        gradients: Option<&mut [f64]>,
    ) -> Result<(), EnergyError> {
        let d = self.dimension();
        check_batch(d, positions, energies.len(), gradients.as_deref())?;
        let groups = positions.par_chunks(WIDTH * d).zip(energies.par_chunks_mut(WIDTH)).with_min_len(GROUPS_PER_TASK);
        match gradients {
            Some(gradients) => groups.zip(gradients.par_chunks_mut(WIDTH * d)).for_each_init(
                || self.workspace(),
                |workspace, ((rows, energies), gradients)| {
                    workspace.load(rows);
                    self.run::<true>(workspace);
                    workspace.store_energies(energies);
                    workspace.store_gradients(gradients);
                },
            ),
            None => groups.for_each_init(
                || self.workspace(),
                |workspace, (rows, energies)| {
                    workspace.load(rows);
                    self.run::<false>(workspace);
                    workspace.store_energies(energies);
                },
            ),
        }
        Ok(())
    }

    fn tables(&self) -> Option<PotentialTables> {
        let forces: Vec<_> = self.terms.iter().map(|term| term.force.tables()).collect();
        let scratch = self.terms.iter().map(|term| match &term.force {
            Force::Born(born) => born.table_scratch(),
            _ => 0,
        });
        Some(PotentialTables::mechanics(self.dimension(), scratch.max().unwrap_or(0), &forces))
    }

    fn term_names(&self) -> Vec<String> {
        self.terms.iter().map(|term| term.name.clone()).collect()
    }

    fn evaluate_terms(&self, positions: &[f64], energies: &mut [f64]) -> Result<(), EnergyError> {
        let (d, terms) = (self.dimension(), self.terms.len());
        let rows = positions.len() / d;
        check_batch(d, positions, rows, None)?;
        if energies.len() != rows * terms {
            return Err(EnergyError::Shape {
                what: "energies by term",
                expected: rows * terms,
                actual: energies.len(),
            });
        }
        positions
            .par_chunks(WIDTH * d)
            .zip(energies.par_chunks_mut(WIDTH * terms))
            .with_min_len(GROUPS_PER_TASK)
            .for_each_init(
                || self.workspace(),
                |workspace, (rows, energies)| {
                    workspace.load(rows);
                    self.run::<false>(workspace);
                    workspace.store_terms(energies);
                },
            );
        Ok(())
    }

    fn is_rigid_invariant(&self) -> bool {
        true
    }
}
