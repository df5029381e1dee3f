//! Several runs as one row a quantity, for people and for programs.

use super::super::super::output::{number, table, with_error};
use super::measure::{Measured, Quantity};
use super::target::{Reference, Regions, Target};
use comfy_table::Table;
use serde_json::{Value, json};
use std::f64::consts::PI;

/// σ of a normal distribution is so many times the median of the distances from its median.
const SIGMA_OF_MAD: f64 = 1.4826;

/// A quantity of all runs.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub target: &'static str,
    pub temperature: f64,
    pub quantity: Quantity,
    /// The median of the runs.
    pub value: f64,
    /// The standard error of the median: by the spread of the runs, or by their own errors where that is more, because few
    /// runs may agree by chance. Of a single run its own error.
    standard_error: f64,
    exact: Option<f64>,
    published: Option<(f64, &'static str)>,
    seeds: usize,
}

impl Row {
    pub fn json(&self) -> Value {
        json!({
            "target": self.target,
            "temperature": self.temperature,
            "quantity": self.quantity.name(),
            "value": number(self.value),
            "stderr": number(self.standard_error),
            "exact": self.exact.map_or(Value::Null, number),
            "published": self.published.map_or(Value::Null, |p| number(p.0)),
            "published_by": self.published.map(|p| p.1),
            "seeds": self.seeds,
        })
    }
}

/// Rows of a target at a temperature, from what each of the runs measured: the same quantities in the same order.
pub(super) fn rows(
    target: &'static Target,
    temperature: f64,
    regions: Option<&Regions>,
    reference: &Reference,
    runs: &[Vec<Measured>],
) -> Vec<Row> {
    let Some(first) = runs.first() else { return Vec::new() };
    let row = |(k, one): (usize, &Measured)| {
        let of_runs: Vec<f64> = runs.iter().filter_map(|run| run.get(k)).map(|m| m.value).collect();
        let own = median(runs.iter().filter_map(|run| run.get(k)).map(|m| m.standard_error).collect());
        let (value, spread) = median_and_error(&of_runs);
        Row {
            target: target.name,
            temperature,
            quantity: one.quantity,
            value,
            // An error that is not known is NaN, and not the larger one.
            standard_error: if of_runs.len() == 1 { own } else { spread.max(of_median(own, of_runs.len())) },
            exact: one.quantity.exact(regions, reference),
            published: target.published(temperature, one.quantity).map(|p| (p.value, p.by)),
            seeds: of_runs.len(),
        }
    };
    first.iter().enumerate().map(row).collect()
}

/// The standard error √(π/2)·σ/√n of the median of n normal numbers.
fn of_median(sigma: f64, n: usize) -> f64 {
    (0.5 * PI / n as f64).sqrt() * sigma
}

/// The median, and its standard error with σ from the median distance from it.
fn median_and_error(values: &[f64]) -> (f64, f64) {
    let centre = median(values.to_vec());
    let distance = median(values.iter().map(|v| (v - centre).abs()).collect());
    (centre, of_median(SIGMA_OF_MAD * distance, values.len()))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    match (values.get(values.len() / 2), values.len() % 2) {
        (Some(&upper), 0) => 0.5 * (values[values.len() / 2 - 1] + upper),
        (Some(&middle), _) => middle,
        (None, _) => f64::NAN,
    }
}

/// The rows of one target.
pub(super) fn rows_table(rows: &[Row]) -> Table {
    let plain = |x: f64| match x.abs() {
        1e5.. => format!("{x:.3e}"),
        ..1e-4 if x != 0.0 => format!("{x:.1e}"),
        _ => format!("{:.6}", x).trim_end_matches('0').trim_end_matches('.').to_string(),
    };
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let has_error = row.standard_error.is_finite() && row.standard_error > 1e-9;
            vec![
                format!("{} at {}", row.target, row.temperature),
                row.quantity.name().into(),
                if has_error { with_error(row.value, row.standard_error) } else { plain(row.value) },
                row.exact.map(plain).unwrap_or_default(),
                row.published.map(|p| plain(p.0)).unwrap_or_default(),
                row.published.map(|p| p.1.to_string()).unwrap_or_default(),
            ]
        })
        .collect();
    table(&["target", "quantity", "measured", "exact", "published", "by"], &cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_their_errors() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
        // Outliers move neither.
        let (centre, error) = median_and_error(&[1.0, 2.0, 3.0, 4.0, 1e9]);
        assert_eq!(centre, 3.0);
        assert!((error - SIGMA_OF_MAD * (0.5 * PI / 5.0).sqrt()).abs() < 1e-12);
    }
}
