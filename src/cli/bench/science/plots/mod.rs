//! Plots of what was measured, as SVG files: one kind of plot a file. Effective samples are of all targets so far, densities
//! and Ramachandran maps of one run.

mod density;
mod effective_samples;
mod ramachandran;

use super::super::super::client::CliError;
use super::measure::Histograms;
use super::report::Row;
use super::target::{Reference, RegionKind, Regions, Target};
use std::path::Path;
use std::rc::Rc;

/// A run of a target, beside what is known of it.
pub(super) struct Shown {
    target: &'static str,
    seed: u64,
    /// The variable that densities are of.
    variable: &'static str,
    temperatures: Vec<ShownTemperature>,
}

struct ShownTemperature {
    temperature: f64,
    model: Histograms,
    reference: Histograms,
}

impl Shown {
    /// Of what a run has seen at each of the target's temperatures.
    pub fn new(
        target: &Target,
        seed: u64,
        regions: Option<&Regions>,
        references: &[Rc<Reference>],
        of_run: Vec<Histograms>,
    ) -> Self {
        let has_map = regions.is_some_and(|r| r.kind == RegionKind::Ramachandran);
        let known = |reference: &Reference| Histograms {
            ramachandran: if has_map { reference.weights.clone() } else { Vec::new() },
            density: reference.marginal.as_ref().map_or(Vec::new(), |m| m.visible().to_vec()),
        };
        let at = target.temperatures.iter().zip(references).zip(of_run);
        let temperatures = at.map(|((&temperature, reference), model)| ShownTemperature {
            temperature,
            model,
            reference: known(reference),
        });
        let marginal = references.iter().find_map(|r| r.marginal.as_ref());
        Self {
            target: target.name,
            seed,
            variable: marginal.map_or("", |m| m.name),
            temperatures: temperatures.collect(),
        }
    }
}

/// Draws a run and what all targets so far have reached; no file where there is nothing to draw.
pub(super) fn draw(folder: &Path, rows: &[Row], shown: Option<&Shown>) -> Result<(), CliError> {
    effective_samples::draw(folder, rows)?;
    let Some(shown) = shown else { return Ok(()) };
    density::draw(folder, shown)?;
    ramachandran::draw(folder, shown)
}

#[cfg(test)]
mod tests {
    use super::super::measure::{Measured, Quantity};
    use super::super::report::rows;
    use super::super::targets::TARGETS;
    use super::*;

    fn target(name: &str) -> &'static Target {
        TARGETS.iter().find(|t| t.name == name).unwrap()
    }

    /// Rows of a target with an effective fraction at each temperature.
    fn made_up(name: &str, fraction: f64) -> Vec<Row> {
        let target = target(name);
        let run = vec![Measured { quantity: Quantity::ReverseEss, value: fraction, standard_error: f64::NAN }];
        let at = |&tau: &f64| rows(target, tau, None, &Reference::unknown(), std::slice::from_ref(&run));
        target.temperatures.iter().flat_map(at).collect()
    }

    fn svg(path: &Path) -> String {
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"), "{} is no SVG", path.display());
        assert!(!text.contains("NaN"), "{} has places that are no numbers", path.display());
        text
    }

    fn files(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn effective_samples_name_the_targets_with_several_temperatures() {
        let folder = tempfile::tempdir().unwrap();
        let mut rows = made_up("double-well", 0.99);
        rows.extend(made_up("funnel-10", 0.9));
        rows.extend(made_up("muller-brown", f64::NAN));
        draw(folder.path(), &rows, None).unwrap();
        let path = folder.path().join("effective-samples.svg");
        let text = svg(&path);
        assert!(text.contains("double-well") && !text.contains("funnel-10") && !text.contains("muller-brown"));
        assert!(!text.contains("scaled"));
        rows.extend(made_up("many-well-32", 0.8));
        draw(folder.path(), &rows, None).unwrap();
        let text = svg(&path);
        assert!(text.contains("double-well") && text.contains("many-well-32") && text.contains("scaled"));
    }

    #[test]
    fn runs_are_drawn_beside_what_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let flat = |n: usize| vec![1.0 / n as f64; n];
        let mut weights = flat(64 * 64);
        weights[..1000].fill(0.0);
        let line: Vec<_> = (0..50).map(|i| (0.1 * f64::from(i), 0.2)).collect();
        let seen = Histograms { ramachandran: weights, density: line.clone() };
        let known = Histograms { ramachandran: flat(64 * 64), density: line };
        let shown = Shown {
            target: "alanine-dipeptide",
            seed: 3,
            variable: "x",
            temperatures: vec![ShownTemperature { temperature: 300.0, model: seen, reference: known }],
        };
        draw(folder.path(), &[], Some(&shown)).unwrap();
        let map = svg(&folder.path().join("alanine-dipeptide-300-ramachandran.svg"));
        assert!(map.contains("alanine-dipeptide") && map.contains("seed 3") && map.contains("ψ"));
        // The bins of both maps and the scale's; those without weight are blank.
        assert!((2 * 64 * 64 - 1000..2 * 64 * 64).contains(&map.matches("<rect").count()));
        let density = svg(&folder.path().join("alanine-dipeptide-density.svg"));
        assert!(density.contains("alanine-dipeptide") && density.contains("300"));
        assert_eq!(files(folder.path()), 2);
    }

    #[test]
    fn where_nothing_is_to_be_drawn_no_file_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = Histograms { ramachandran: vec![f64::NAN; 16], density: vec![(0.0, f64::NAN), (1.0, f64::NAN)] };
        let shown = Shown {
            target: "double-well",
            seed: 0,
            variable: "x",
            temperatures: vec![
                ShownTemperature { temperature: 1.0, model: Histograms::default(), reference: Histograms::default() },
                ShownTemperature { temperature: 2.0, model: nowhere, reference: Histograms::default() },
            ],
        };
        draw(folder.path(), &made_up("double-well", f64::NAN), Some(&shown)).unwrap();
        assert_eq!(files(folder.path()), 0);
    }

    #[test]
    fn files_that_cannot_be_written_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = draw(&folder.path().join("none"), &made_up("double-well", 0.9), None).unwrap_err();
        assert!(error.to_string().contains("effective-samples.svg"), "{error}");
    }
}
