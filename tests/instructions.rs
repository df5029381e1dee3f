//! The kernels of processors other than this one: all checks of `boltzflow doctor`, with lesser vector instructions.

use std::process::Command;

/// The doctor's report with these instructions; nothing if this machine does not have them.
fn doctor(instructions: &str) -> Option<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_boltzflow"));
    let output = command.args(["doctor", "--device", "cpu", "--instructions", instructions]).output().unwrap();
    let (report, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(2) && said.contains("this machine has no") {
        eprintln!("skipped: {said}");
        return None;
    }
    assert!(output.status.success(), "{instructions}: {report}{said}");
    Some(report.into_owned())
}

#[test]
fn kernels_are_right_with_any_instructions() {
    for (instructions, name) in [("portable", "portable"), ("avx2", "AVX2"), ("avx512", "AVX-512")] {
        if let Some(report) = doctor(instructions) {
            let machine = report.lines().next().unwrap_or_default();
            assert!(machine.ends_with(&format!("kernels: {name}")), "{instructions}: {machine}");
        }
    }
}
