//! `boltzflow bench` and `boltzflow doctor`, as they are run.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn boltzflow(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_boltzflow")).args(arguments).output().unwrap()
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn rates_are_written_in_the_agreed_form() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bench.json");
    let json = path.to_string_lossy();
    let flags = ["--threads", "1", "--device", "cpu", "--seconds", "0", "--json", &json];
    let output = boltzflow(&[&["bench", "realnvp-2", "ala2-energy"][..], &flags].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let value = read(&path);
    assert_eq!((&value["threads"], &value["device"]), (&1.into(), &"cpu".into()));
    let rates = value["items_per_second"].as_object().unwrap();
    assert_eq!(rates.keys().collect::<Vec<_>>(), ["ala2-energy", "realnvp-2"]);
    for rate in rates.values() {
        assert_eq!(rate.as_object().unwrap().keys().collect::<Vec<_>>(), ["boltzflow"]);
        assert!(rate["boltzflow"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(value["flop_per_item"], serde_json::json!({ "realnvp-2": 68_608.0 }));
    assert!(value.get("latency_ms").is_none());
    assert!(text(&output.stdout).contains("samples/s"));
}

#[test]
fn misspelt_workloads_are_refused() {
    let output = boltzflow(&["bench", "realnvp-6"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("realnvp-60"), "the names are not said");
    let output = boltzflow(&["bench", "science", "many-wells"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("many-well-32"), "the names are not said");
    let output = boltzflow(&["doctor", "--device", "tpu"]);
    assert_eq!(output.status.code(), Some(2));
}

/// As in `boltzflow bench … | head -1`, and where there is no more room for a file.
#[test]
fn readers_that_leave_end_the_process_and_nothing_panics() {
    let (reader, gone) = std::io::pipe().unwrap();
    drop(reader);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    for (output, code, said) in [(Stdio::from(gone), 141, ""), (Stdio::from(full), 1, "standard output")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_boltzflow"));
        command.args(["bench", "realnvp-2", "--device", "cpu", "--seconds", "0"]).stdout(output);
        let output = command.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(error.contains(said) && !error.contains("panicked"), "{error}");
    }
}

/// What a command is about goes on where nobody reads its remarks.
#[test]
fn nobody_has_to_read_remarks() {
    let (reader, gone) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_boltzflow"));
    command.args(["bench", "realnvp-2", "--device", "cpu", "--seconds", "0"]).stderr(gone);
    let output = command.output().unwrap();
    assert!(output.status.success() && text(&output.stdout).contains("realnvp-2"), "{}", text(&output.stdout));
}

/// Little training, and so no good flow; what is exact is exact all the same.
#[test]
fn targets_are_measured_beside_what_is_known_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("science.json");
    let json = path.to_string_lossy();
    // The folder is made, with those above it.
    let plots = folder.path().join("science").join("plots");
    let drawn = plots.to_string_lossy();
    let flags = ["--seeds", "2", "--seconds", "0.5", "--samples", "8000", "--device", "cpu"];
    let files = ["--json", &json, "--plots", &drawn];
    let output = boltzflow(&[&["bench", "science", "double-well"][..], &flags, &files].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("ess_forward"));
    let rows = read(&path);
    let rows = rows.as_array().unwrap();
    let keys = ["exact", "published", "published_by", "quantity", "seeds", "stderr", "target", "temperature", "value"];
    for row in rows {
        assert_eq!(row.as_object().unwrap().keys().collect::<Vec<_>>(), keys);
        assert_eq!((&row["target"], &row["seeds"]), (&"double-well".into(), &2.into()));
    }
    let find = |tau: f64, quantity: &str| {
        let row = rows.iter().find(|r| r["temperature"] == tau && r["quantity"] == quantity);
        row.unwrap_or_else(|| panic!("{quantity} at {tau} is missing"))
    };
    for (tau, log_z, delta_f) in [(0.5, 21.036795, 6.84940), (1.0, 11.020467, 3.380006), (2.0, 6.509507, 1.633447)] {
        assert!((find(tau, "log_z")["exact"].as_f64().unwrap() - log_z).abs() < 1e-6);
        assert!((find(tau, "delta_f")["exact"].as_f64().unwrap() - delta_f).abs() < 1e-5);
    }
    for quantity in ["log_z_deviation", "ess_reverse", "ess_forward", "kl_forward", "worst_mode_error"] {
        for tau in [0.75, 1.5] {
            assert_eq!(find(tau, quantity)["exact"], Value::Null);
        }
    }
    // A flow is not better than the target itself, but by the noise of 8,000 samples.
    let log_q = find(1.0, "mean_log_q");
    assert!(log_q["value"].as_f64().unwrap() < log_q["exact"].as_f64().unwrap() + 0.1);
    assert!(find(1.0, "energy_evaluations")["value"].as_f64().unwrap() > 0.0);
    assert!(rows.iter().filter(|r| r["quantity"] == "seconds").count() == 1);
    for name in ["effective-samples.svg", "double-well-density.svg"] {
        let svg = std::fs::read_to_string(plots.join(name)).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("double-well"), "{name}");
    }
    assert_eq!(std::fs::read_dir(&plots).unwrap().count(), 2);
}

/// Before anything is trained.
#[test]
fn a_folder_of_plots_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let plots = file.join("plots");
    let output =
        boltzflow(&["bench", "science", "double-well", "--device", "cpu", "--plots", &plots.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains(&*plots.to_string_lossy()) && !said.contains("seed 0"), "{said}");
}

#[test]
fn the_doctor_finds_this_machine_well() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("doctor.json");
    let output = boltzflow(&["doctor", "--device", "cpu", "--json", &path.to_string_lossy()]);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let value = read(&path);
    assert_eq!(value["passed"], true);
    let checks = value["checks"].as_array().unwrap();
    assert!(checks.iter().all(|c| c["passed"] == true && c["tolerance"].is_number()));
    for subject in ["spline, circular, inverse", "affine, ReLU, forward", "alanine dipeptide", "grpc-stream"] {
        assert!(checks.iter().any(|c| c["check"] == subject), "{subject} is not checked");
    }
    let rates = value["items_per_second"].as_object().unwrap();
    assert_eq!(rates.len(), 13);
    assert!(value["latency_ms"]["p50"].as_f64() <= value["latency_ms"]["p99"].as_f64());
    assert!(value["in_process_per_second"]["grpc-stream"].as_f64().unwrap() > 0.0);
}
