//! `boltzflow energy`

use super::arrays::{Array, read_positions, write_npy};
use super::client::CliError;
use super::output::{JsonArgs, number, table};
use crate::energy::analytic::AnalyticPotential;
use crate::energy::{EnergyScale, System, SystemDefinition};
use serde_json::json;
use std::path::PathBuf;

/// Evaluate energies and forces, in this process
///
/// Example: boltzflow energy --system system.xml --positions frames.npz --by-force --forces forces.npy
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A system that comes with boltzflow, by name, or an OpenMM System XML file
    #[arg(long, value_name = "NAME|SYSTEM.xml")]
    system: String,
    /// Configurations: an .npy file or an .npz file with positions_nm or positions, (n, atoms, 3) in nm or (n, dimension);
    /// or a trajectory, .xtc, .dcd, .pdb or Amber's .nc
    #[arg(long, value_name = "X.npy|X.npz|X.pdb|X.xtc|X.dcd|X.nc")]
    positions: PathBuf,
    /// Write forces (kJ/mol/nm for molecules), in the shape of the positions
    #[arg(long, value_name = "F.npy")]
    forces: Option<PathBuf>,
    /// Energies of each force as well
    #[arg(long)]
    by_force: bool,
    #[command(flatten)]
    json: JsonArgs,
}

/// A system by its built-in name or its XML file.
fn system(name: &str) -> Result<System, CliError> {
    let definition = match AnalyticPotential::built_in(name) {
        Some(potential) => SystemDefinition::Analytic(potential),
        None => {
            let path = PathBuf::from(name);
            let system_xml = std::fs::read_to_string(&path).map_err(|e| {
                let known = AnalyticPotential::BUILT_IN.join(", ");
                CliError::file(&path, format!("{e}; --system is an XML file or one of {known}"))
            })?;
            SystemDefinition::OpenMm { system_xml, topology_pdb: None }
        }
    };
    System::build(definition).map_err(|e| CliError::failed(format!("{name}: {e}")))
}

pub(super) async fn run(args: Args) -> Result<(), CliError> {
    tokio::task::spawn_blocking(move || evaluate(&args))
        .await
        .map_err(|e| CliError::failed(format!("the evaluation died: {e}")))?
}

fn evaluate(args: &Args) -> Result<(), CliError> {
    let system = system(&args.system)?;
    let Array { numbers, shape } = read_positions(&args.positions)?;
    let d = system.dimension();
    let fits = match shape[..] {
        [_, width] => width == d,
        [_, atoms, 3] => system.atoms() == Some(atoms),
        _ => false,
    };
    if !fits {
        let needed = system.shape(0);
        let reason = format!("the shape is {shape:?}; the system needs (n, {:?})", &needed[1..]);
        return Err(CliError::file(&args.positions, reason));
    }
    if let Some(warning) = system.unit_warning(&numbers) {
        remark!("warning: {}: {warning}", args.positions.display());
    }
    let n = numbers.len() / d;
    let failed = |e: crate::energy::EnergyError| CliError::failed(e.to_string());
    let mut energies = vec![0.0; n];
    let mut forces = vec![0.0; if args.forces.is_some() { numbers.len() } else { 0 }];
    let wanted = args.forces.is_some().then_some(forces.as_mut_slice());
    system.potential().evaluate(&numbers, &mut energies, wanted).map_err(failed)?;
    if let Some(path) = &args.forces {
        forces.iter_mut().for_each(|f| *f = -*f);
        write_npy(path, &Array { numbers: forces, shape })?;
    }
    let names = system.potential().term_names();
    let mut terms = vec![0.0; if args.by_force { n * names.len() } else { 0 }];
    if args.by_force {
        system.potential().evaluate_terms(&numbers, &mut terms).map_err(failed)?;
    }
    let column = |j: usize| terms.iter().skip(j).step_by(names.len().max(1)).copied();
    // The keys are fixed for programs; the unit of a reduced system is said beside them.
    let unit = if system.scale() == EnergyScale::Reduced { "reduced" } else { "kJ/mol" };
    let list = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(number).collect::<Vec<_>>();
    let mut value = json!({ "energy_kj_mol": list(&mut energies.iter().copied()), "energy_unit": unit });
    if args.by_force {
        let forces = names.iter().enumerate();
        let forces = forces.map(|(j, name)| json!({ "name": name, "energy_kj_mol": list(&mut column(j)) }));
        value["energy_by_force_kj_mol"] = forces.collect();
    }
    if args.json.write(&value)? {
        let total = format!("energy ({unit})");
        let mut header = vec!["frame", total.as_str()];
        header.extend(names.iter().take(if args.by_force { names.len() } else { 0 }).map(String::as_str));
        let rows: Vec<Vec<String>> = (0..n)
            .map(|i| {
                let mut row = vec![i.to_string(), format!("{:.6}", energies[i])];
                if args.by_force {
                    row.extend((0..names.len()).map(|j| format!("{:.6}", terms[i * names.len() + j])));
                }
                row
            })
            .collect();
        say!("{}", table(&header, &rows));
    }
    Ok(())
}
