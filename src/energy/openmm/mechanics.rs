//! The sum of a system's forces as a potential.

use super::angles::HarmonicAngles;
use super::bonds::HarmonicBonds;
use super::born::GeneralizedBorn;
use super::collective::{CollectiveScratch, CollectiveVariables};
use super::custom_born::{CustomBorn, CustomBornScratch};
use super::custom_pairs::CustomPairs;
use super::custom_terms::CustomTerms;
use super::expression::EnergyRegisters;
use super::lanes::{Lanes, Vector, WIDTH};
use super::nonbonded::Nonbonded;
use super::torsion_maps::TorsionMaps;
use super::torsions::PeriodicTorsions;
use super::workspace::{BornScratch, Workspace};
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
    Maps(TorsionMaps),
    Terms(CustomTerms),
    Pairs(CustomPairs),
    CustomBorn(Box<CustomBorn>),
    Collective(Box<CollectiveVariables>),
    /// A force that acts on velocities only.
    None,
}

/// What one thread needs to evaluate a force, besides positions and gradients.
#[derive(Debug)]
pub(super) enum Scratch {
    Nothing,
    Born(BornScratch),
    Expression(EnergyRegisters),
    CustomBorn(Box<CustomBornScratch>),
    Collective(CollectiveScratch),
}

impl Force {
    /// The force as tables for a GPU, if there is such a form of it.
    fn tables(&self) -> Option<(ForceKind, ForceTables)> {
        match self {
            Self::Bonds(force) => Some((ForceKind::Bonds, force.tables())),
            Self::Angles(force) => Some((ForceKind::Angles, force.tables())),
            Self::Torsions(force) => Some((ForceKind::Torsions, force.tables())),
            Self::Nonbonded(force) => Some((ForceKind::Nonbonded, force.tables()?)),
            Self::Born(force) => Some((ForceKind::Born, force.tables()?)),
            Self::None => Some((ForceKind::None, ForceTables::default())),
            Self::Maps(_) | Self::Terms(_) | Self::Pairs(_) | Self::CustomBorn(_) | Self::Collective(_) => None,
        }
    }

    pub fn scratch(&self) -> Scratch {
        match self {
            Self::Born(force) => Scratch::Born(force.scratch()),
            Self::Terms(force) => Scratch::Expression(force.registers()),
            Self::Pairs(force) => Scratch::Expression(force.registers()),
            Self::CustomBorn(force) => Scratch::CustomBorn(Box::new(force.scratch())),
            Self::Collective(force) => Scratch::Collective(force.scratch()),
            _ => Scratch::Nothing,
        }
    }

    /// Whether the energy is the same after every translation and rotation.
    pub fn is_rigid_invariant(&self) -> bool {
        match self {
            Self::Terms(force) => force.is_rigid_invariant(),
            Self::CustomBorn(force) => force.is_rigid_invariant(),
            Self::Collective(force) => force.is_rigid_invariant(),
            _ => true,
        }
    }

    /// Energies of the configurations; gradients are added to. Only the first `loaded` lanes have to be right.
    #[inline(always)]
    fn evaluate<const GRADIENT: bool>(
        &self,
        at: &[Vector],
        gradient: &mut [Vector],
        scratch: &mut Scratch,
        loaded: usize,
    ) -> Lanes {
        match (self, scratch) {
            (Self::Bonds(force), _) => force.evaluate::<GRADIENT>(at, gradient),
            (Self::Angles(force), _) => force.evaluate::<GRADIENT>(at, gradient),
            (Self::Torsions(force), _) => force.evaluate::<GRADIENT>(at, gradient),
            (Self::Nonbonded(force), _) => force.evaluate::<GRADIENT>(at, gradient),
            (Self::Born(force), Scratch::Born(scratch)) => force.evaluate::<GRADIENT>(at, gradient, scratch),
            (Self::Maps(force), _) => force.evaluate::<GRADIENT>(at, gradient),
            (Self::Terms(force), Scratch::Expression(scratch)) => force.evaluate::<GRADIENT>(at, gradient, scratch),
            (Self::Pairs(force), Scratch::Expression(scratch)) => force.evaluate::<GRADIENT>(at, gradient, scratch),
            (Self::CustomBorn(force), Scratch::CustomBorn(scratch)) => {
                force.evaluate::<GRADIENT>(at, gradient, scratch, loaded)
            }
            (Self::Collective(force), Scratch::Collective(scratch)) => {
                force.evaluate::<GRADIENT>(at, gradient, scratch, loaded)
            }
            // A force has the scratch space that it made.
            (Self::None, _) | (_, _) => Lanes::ZERO,
        }
    }
}

/// One force, compiled for each instruction set.
pub(super) struct ForceKernel<'a, const GRADIENT: bool> {
    pub force: &'a Force,
    pub at: &'a [Vector],
    pub gradient: &'a mut [Vector],
    pub scratch: &'a mut Scratch,
    /// The lanes, the first ones, whose results matter.
    pub loaded: usize,
}

impl<const GRADIENT: bool> Kernel for ForceKernel<'_, GRADIENT> {
    type Output = Lanes;

    #[inline(always)]
    fn run<I: InstructionSet>(self) -> Lanes {
        self.force.evaluate::<GRADIENT>(self.at, self.gradient, self.scratch, self.loaded)
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

    /// The pairs of atoms of a force that is of their distances, by any expression; the smaller index first.
    pub fn distances(&self) -> Vec<(usize, usize)> {
        match &self.force {
            Force::Terms(terms) => terms.distances(),
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
        Workspace::new(self.atoms, self.terms.iter().map(|term| term.force.scratch()).collect())
    }

    /// Energies of the terms, and the gradient of their sum, of the configurations that the workspace has loaded.
    fn run<const GRADIENT: bool>(&self, workspace: &mut Workspace) {
        let Workspace { at, gradient, energies, scratch, loaded, .. } = workspace;
        for ((term, energy), scratch) in self.terms.iter().zip(energies).zip(scratch) {
            let loaded = *loaded;
            *energy = dispatch(ForceKernel::<GRADIENT> { force: &term.force, at, gradient, scratch, loaded });
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
        let forces: Vec<_> = self.terms.iter().map(|term| term.force.tables()).collect::<Option<_>>()?;
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
        self.terms.iter().all(|term| term.force.is_rigid_invariant())
    }
}
