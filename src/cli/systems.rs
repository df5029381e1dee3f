//! `boltzflow systems`

use super::client::{CliError, ServerArgs, every_page};
use super::names::resource;
use super::output::{JsonArgs, table};
use super::train::send_system;
use crate::contract::v1;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Look after systems
///
/// Example: boltzflow systems create system.xml --topology topology.pdb
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List systems
    List {
        #[command(flatten)]
        json: JsonArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Send an OpenMM System XML; prints the system's name
    Create {
        #[arg(value_name = "SYSTEM.xml")]
        system: String,
        #[arg(long, value_name = "T.pdb")]
        topology: Option<PathBuf>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show one system
    Show {
        name: String,
        #[command(flatten)]
        json: JsonArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Delete a system that nothing needs
    Delete {
        name: String,
        #[command(flatten)]
        server: ServerArgs,
    },
}

fn unit(system: &v1::System) -> &'static str {
    if system.energy_unit() == v1::EnergyUnit::KjPerMol { "kJ/mol" } else { "reduced" }
}

fn system_json(system: &v1::System) -> Value {
    json!({
        "name": system.name,
        "display_name": system.display_name,
        "dimension": system.dimension,
        "atoms": system.atoms,
        "energy_unit": unit(system),
        "energy_digest": system.energy_digest,
        "forces": system.forces,
        "constraints": system.constraints,
        "built_in": system.built_in,
    })
}

pub(super) async fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::List { json, server } => {
            let mut clients = server.connect().await?;
            let systems = every_page(async |page_token| {
                let request = v1::ListSystemsRequest { page_size: 0, page_token };
                let page = clients.systems.list_systems(request).await?.into_inner();
                Ok((page.systems, page.next_page_token))
            })
            .await?;
            if json.write(&systems.iter().map(system_json).collect())? {
                let rows: Vec<Vec<String>> = systems
                    .iter()
                    .map(|s| {
                        let dimension =
                            if s.atoms > 0 { format!("{} atoms", s.atoms) } else { s.dimension.to_string() };
                        vec![s.name.clone(), dimension, unit(s).into(), s.forces.join(", ")]
                    })
                    .collect();
                say!("{}", table(&["system", "size", "energy", "forces"], &rows));
            }
        }
        Command::Create { system, topology, server } => {
            let mut clients = server.connect().await?;
            say!("{}", send_system(&mut clients, &system, topology.as_deref()).await?);
        }
        Command::Show { name, json, server } => {
            let mut clients = server.connect().await?;
            let request = v1::GetSystemRequest { name: resource("systems", &name), full: false };
            let value = system_json(&clients.systems.get_system(request).await?.into_inner());
            json.show(&value)?;
        }
        Command::Delete { name, server } => {
            let mut clients = server.connect().await?;
            clients.systems.delete_system(v1::DeleteSystemRequest { name: resource("systems", &name) }).await?;
        }
    }
    Ok(())
}
