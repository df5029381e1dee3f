//! Tables, JSON and progress bars.

use super::client::CliError;
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// JSON for programs, instead of text for people.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct JsonArgs {
    /// Write JSON to FILE, or to standard output
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub json: Option<PathBuf>,
}

impl JsonArgs {
    /// Writes the value if JSON was asked for; says whether text is still wanted on standard output.
    pub fn write(&self, value: &Value) -> Result<bool, CliError> {
        let Some(path) = &self.json else { return Ok(true) };
        let text = serde_json::to_string_pretty(value).map_err(|e| CliError::failed(e.to_string()))?;
        if path == Path::new("-") {
            say!("{text}");
            return Ok(false);
        }
        std::fs::write(path, text + "\n").map_err(|e| CliError::file(path, e))?;
        Ok(true)
    }

    /// Writes the value as JSON in any case: to the file that was asked for, or to standard output.
    pub fn show(&self, value: &Value) -> Result<(), CliError> {
        let json = Self { json: Some(self.json.clone().unwrap_or_else(|| "-".into())) };
        json.write(value).map(|_| ())
    }
}

/// A table with right-aligned columns after the first.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> Table {
    let mut table = Table::new();
    let line = LineStyle::none().fill('─').junction('─');
    let style = TableStyle::new().top_border(line).header_separator(line).bottom_border(line);
    table.load_style(style).set_header(header.iter().copied());
    rows.iter().for_each(|row| {
        table.add_row(row);
    });
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A number with its standard error, to the digits that the error allows: 3.380(12). Without an error it is exact: the zero
/// that others are measured from.
pub(super) fn with_error(value: f64, error: f64) -> String {
    if error == 0.0 {
        return format!("{value}");
    }
    if !(value.is_finite() && error.is_finite() && error > 0.0) {
        return format!("{value:.4} ± {error:.1e}");
    }
    let digits = (1.0 - error.log10().floor()).clamp(0.0, 12.0) as usize;
    let scaled = (error * 10f64.powi(digits as i32)).round();
    format!("{value:.digits$}({scaled:.0})")
}

/// A progress bar on a terminal, silent elsewhere.
pub(super) fn progress_bar(length: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr_with_hz(5));
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
    }
    bar
}

/// Seconds as people say them.
pub(super) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "?".into();
    }
    let s = seconds.max(0.0).round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s % 3600 / 60),
    }
}

/// A number of JSON; NaN and infinities are null there.
pub(super) fn number(x: f64) -> Value {
    serde_json::Number::from_f64(x).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_decide_the_digits() {
        assert_eq!(with_error(3.38, 0.0123), "3.380(12)");
        assert_eq!(with_error(-178.69123, 0.28), "-178.69(28)");
        assert_eq!(with_error(120.4, 3.4), "120.4(34)");
        assert_eq!(with_error(1.0, f64::INFINITY), "1.0000 ± inf");
        assert_eq!(with_error(0.0, 0.0), "0");
        assert_eq!(duration(3725.0), "1 h 02 min");
    }
}
