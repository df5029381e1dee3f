//! A system: a potential with its units, its topology and the digest that names it.

use super::analytic::AnalyticPotential;
use super::openmm::{self, Constraint, Topology};
use super::potential::{EnergyError, EnergyScale, Potential};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// What a system is made from: small enough to store, complete enough to build it again anywhere.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SystemDefinition {
    Analytic(AnalyticPotential),
    OpenMm {
        /// The text of OpenMM's `XmlSerializer.serialize(system)`.
        system_xml: String,
        /// A PDB file with the same atoms in the same order; its coordinates are a starting structure.
        topology_pdb: Option<String>,
    },
}

/// No usual bond is this long, in nm; all are, if Å are taken for nm.
const LONG_BOND: f64 = 0.5;

/// A potential energy surface that flows are trained on.
#[derive(Clone, Debug)]
pub struct System {
    definition: SystemDefinition,
    potential: Arc<dyn Potential>,
    scale: EnergyScale,
    topology: Option<Arc<Topology>>,
    masses: Vec<f64>,
    constraints: Vec<Constraint>,
    bonds: Vec<(usize, usize)>,
    digest: String,
}

impl System {
    /// Builds the system, or says which part of its definition is wrong or not supported.
    pub fn build(definition: SystemDefinition) -> Result<Self, EnergyError> {
        let mut hash = Sha256::new();
        match &definition {
            SystemDefinition::Analytic(analytic) => {
                let text = serde_json::to_string(analytic)
                    .map_err(|e| EnergyError::Definition(format!("the potential's parameters: {e}")))?;
                hash.update(b"analytic\0");
                hash.update(text.as_bytes());
                let potential = analytic.build()?;
                Ok(Self {
                    potential,
                    scale: EnergyScale::Reduced,
                    topology: None,
                    masses: Vec::new(),
                    constraints: Vec::new(),
                    bonds: Vec::new(),
                    digest: hex(&hash.finalize()),
                    definition,
                })
            }
            SystemDefinition::OpenMm { system_xml, topology_pdb } => {
                hash.update(b"openmm\0");
                hash.update(system_xml.as_bytes());
                let system = openmm::read_system(system_xml)?;
                let topology = topology_pdb.as_deref().map(Topology::from_pdb).transpose()?;
                if let Some(topology) = &topology
                    && topology.atoms.len() != system.masses.len()
                {
                    return Err(EnergyError::Definition(format!(
                        "topology_pdb has {} atoms, but the system has {}; write both from the same OpenMM objects",
                        topology.atoms.len(),
                        system.masses.len()
                    )));
                }
                let bonds = system.potential.bonds();
                Ok(Self {
                    potential: Arc::new(system.potential),
                    scale: EnergyScale::KilojoulePerMole,
                    topology: topology.map(Arc::new),
                    masses: system.masses,
                    constraints: system.constraints,
                    bonds,
                    digest: hex(&hash.finalize()),
                    definition,
                })
            }
        }
    }

    pub fn definition(&self) -> &SystemDefinition {
        &self.definition
    }

    pub fn potential(&self) -> &Arc<dyn Potential> {
        &self.potential
    }

    pub fn scale(&self) -> EnergyScale {
        self.scale
    }

    pub fn topology(&self) -> Option<&Arc<Topology>> {
        self.topology.as_ref()
    }

    /// Masses of the atoms in dalton; empty for a system without atoms.
    pub fn masses(&self) -> &[f64] {
        &self.masses
    }

    /// The number of atoms, if the system is made of atoms.
    pub fn atoms(&self) -> Option<usize> {
        (!self.masses.is_empty()).then_some(self.masses.len())
    }

    /// The constrained distances.
    pub fn constraints(&self) -> &[Constraint] {
        &self.constraints
    }

    /// The pairs of atoms that the energy binds to each other, or a constraint does: the smaller index first, sorted, each
    /// once; empty for a system without atoms.
    pub fn bonds(&self) -> &[(usize, usize)] {
        &self.bonds
    }

    /// A sentence if the first of these configurations has bonds ten times as long as atoms can have: Å, where nm are meant.
    pub fn unit_warning(&self, positions: &[f64]) -> Option<String> {
        let x = positions.get(..self.dimension())?;
        let length = |&(i, j): &(usize, usize)| {
            (0..3).map(|axis| (x[3 * i + axis] - x[3 * j + axis]).powi(2)).sum::<f64>().sqrt()
        };
        let mut lengths: Vec<f64> = self.bonds.iter().map(length).collect();
        lengths.sort_by(f64::total_cmp);
        let middle = *lengths.get(lengths.len() / 2)?;
        (middle > LONG_BOND).then(|| {
            format!("half of the bonds are longer than {middle:.2} nm: are the positions in Å? They must be in nm.")
        })
    }

    /// The number of coordinates of a configuration (3N for N atoms).
    pub fn dimension(&self) -> usize {
        self.potential.dimension()
    }

    /// SHA-256 of the definition of the energy, in hexadecimal: what an answer names as the energy it used.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The shape of `n` configurations: (n, atoms, 3) or (n, d).
    pub fn shape(&self, n: usize) -> Vec<usize> {
        match self.atoms() {
            Some(atoms) => vec![n, atoms, 3],
            None => vec![n, self.dimension()],
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
