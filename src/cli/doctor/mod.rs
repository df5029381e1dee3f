//! `boltzflow doctor`: whether this machine computes what it should, and how fast.

mod cases;
mod check;
mod energies;
mod kernels;
mod machine;

use super::bench::{Measurement, Pace, Setting, Workload, device_name, measure, measurements_json, measurements_table};
use super::client::CliError;
use super::output::{JsonArgs, number, table};
use crate::compute::{DeviceChoice, Precision, open_device};
use check::Check;
use clap::ValueEnum;
use serde_json::{Value, json};

/// Check that a machine computes what it should, and how fast
///
/// The one command to run on a new node. Compares every kernel of flows on the device, in both directions, values and
/// gradients, with f64 on the CPU on random inputs; compares energies and forces with exact values and with OpenMM's; runs
/// each workload of `boltzflow bench` for a moment. Fails, with exit code 1, if anything deviates by more than its
/// tolerance.
///
/// Example: boltzflow doctor --device cuda:0 --json doctor.json
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// auto, cpu or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
    #[command(flatten)]
    json: JsonArgs,
}

pub(super) async fn run(args: Args) -> Result<(), CliError> {
    let device = open_device(args.device).map_err(|e| CliError::failed(e.to_string()))?;
    let machine = machine::Machine::here(&device);
    let setting =
        Setting { choice: args.device, device: device.clone(), precision: Precision::Full, pace: Pace::brief() };
    let run_checks = move || -> Result<Vec<Check>, CliError> {
        let mut checks = kernels::checks(&device)?;
        checks.extend(energies::checks()?);
        Ok(checks)
    };
    let mut checks = tokio::task::spawn_blocking(run_checks)
        .await
        .map_err(|e| CliError::failed(format!("the checks died: {e}")))??;
    let measurements = measure(Workload::value_variants(), &setting).await?;
    checks.extend(measurements.iter().map(runs));
    let failures: Vec<&Check> = checks.iter().filter(|c| !c.passed()).collect();
    if args.json.write(&report(&machine, &checks, &measurements, &setting))? {
        say!("{machine}");
        say!("{}", checks_table(&checks));
        say!("{}", measurements_table(&measurements));
    }
    if failures.is_empty() {
        remark!("all {} checks passed on {}", checks.len(), device_name(&setting.device));
        return Ok(());
    }
    let names: Vec<String> = failures.iter().map(|c| format!("{} ({})", c.subject, c.quantity)).collect();
    Err(CliError::failed(format!("{} of {} checks failed: {}", failures.len(), checks.len(), names.join(", "))))
}

/// A workload that ran has a rate.
fn runs(m: &Measurement) -> Check {
    let runs = m.items_per_second.is_finite() && m.items_per_second > 0.0;
    Check {
        subject: m.workload.name(),
        quantity: "runs",
        deviation: if runs { 0.0 } else { f64::INFINITY },
        tolerance: 0.0,
    }
}

fn checks_table(checks: &[Check]) -> comfy_table::Table {
    let rows: Vec<Vec<String>> = checks
        .iter()
        .map(|c| {
            let result = if c.passed() { "pass" } else { "FAIL" };
            let (deviation, tolerance) = (format!("{:.1e}", c.deviation), format!("{:.0e}", c.tolerance));
            vec![c.subject.clone(), c.quantity.to_string(), deviation, tolerance, result.to_string()]
        })
        .collect();
    table(&["check", "of", "largest deviation", "tolerance", ""], &rows)
}

fn report(machine: &machine::Machine, checks: &[Check], measurements: &[Measurement], setting: &Setting) -> Value {
    let mut value = measurements_json(measurements, machine.threads, setting);
    value["processor"] = machine.processor.clone().into();
    value["vector_instructions"] = machine.instructions.clone().into();
    value["kernels"] = machine.kernels.into();
    value["passed"] = checks.iter().all(Check::passed).into();
    value["checks"] = checks
        .iter()
        .map(|c| {
            json!({
                "check": c.subject,
                "of": c.quantity,
                "deviation": number(c.deviation),
                "tolerance": c.tolerance,
                "passed": c.passed(),
            })
        })
        .collect();
    value
}
