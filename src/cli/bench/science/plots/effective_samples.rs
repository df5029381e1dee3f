//! Effective samples over temperature, of all targets that have several.

use super::super::super::super::client::CliError;
use super::super::super::super::plots::{COLOURS, Drawn};
use super::super::measure::Quantity;
use super::super::report::Row;
use super::super::target::Target;
use super::super::targets::TARGETS;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (1040, 560);
/// The rest of the width has the legend, which so hides no line.
const CHART_WIDTH: u32 = 740;
const LEGEND_LINE: i32 = 24;

/// Where the axis of temperature has marks.
const MARKS: [f64; 9] = [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0];
/// The axis goes beyond the outermost temperatures by this factor.
const BEYOND: f64 = 1.05;

/// What one map whose latents are scaled would keep of a perfect map's samples (docs/science.md): the target, and at each
/// temperature the part.
const SCALED_MAP: (&str, [(f64, f64); 4]) = ("many-well-32", [(0.5, 0.136), (1.0, 1.0), (1.5, 0.062), (2.0, 1e-6)]);

/// The effective fractions of a target, in percent, by temperatures relative to that trained at.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
    colour: RGBColor,
    is_dashed: bool,
}

pub(super) fn draw(folder: &Path, rows: &[Row]) -> Result<(), CliError> {
    let several = TARGETS.iter().filter(|t| t.temperatures.len() > 1);
    // A target has its colour whichever others are there.
    let lines: Vec<Line> = several.zip(COLOURS.iter().cycle()).flat_map(|(t, c)| lines_of(t, rows, *c)).collect();
    if lines.is_empty() {
        return Ok(());
    }
    let path = folder.join("effective-samples.svg");
    paint(&path, &lines).map_err(|e| CliError::file(&path, e))
}

/// The line of a target, and the one that it is compared with; none where nothing was measured.
fn lines_of(target: &Target, rows: &[Row], colour: RGBColor) -> Vec<Line> {
    let of_target = rows.iter().filter(|r| r.target == target.name && r.quantity == Quantity::ReverseEss);
    let finite = of_target.filter(|r| r.value.is_finite());
    let points: Vec<_> = finite.map(|r| (r.temperature / target.trained_at, 100.0 * r.value)).collect();
    if points.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![Line { name: target.name.into(), points, colour, is_dashed: false }];
    let (name, kept) = SCALED_MAP;
    if name == target.name {
        let name = format!("{name}: scaled latents, at best");
        let points = kept.map(|(temperature, part)| (temperature, 100.0 * part)).to_vec();
        lines.push(Line { name, points, colour, is_dashed: true });
    }
    lines
}

fn paint(path: &Path, lines: &[Line]) -> Drawn {
    let temperatures = || lines.iter().flat_map(|line| &line.points).map(|p| p.0);
    let low = temperatures().fold(f64::INFINITY, f64::min) / BEYOND;
    let high = temperatures().fold(0.0, f64::max) * BEYOND;
    let marks = MARKS.iter().copied().filter(|mark| (low..high).contains(mark)).collect();
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (left, legend) = root.split_horizontally(CHART_WIDTH);
    let mut chart = ChartBuilder::on(&left)
        .caption("Effective samples of the models' own (median of the seeds)", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(58)
        .build_cartesian_2d((low..high).log_scale().with_key_points(marks), 0.0..100.0)?;
    chart
        .configure_mesh()
        .x_desc("temperature / temperature trained at")
        .x_label_formatter(&|x| format!("{x}"))
        .y_desc("effective samples (%)")
        .y_label_formatter(&|y| format!("{y}"))
        .light_line_style(WHITE)
        .draw()?;
    for (k, line) in lines.iter().enumerate() {
        let y = 60 + LEGEND_LINE * k as i32;
        let sample = [(8, y), (40, y)];
        let style = line.colour.stroke_width(2);
        if line.is_dashed {
            chart.draw_series(DashedLineSeries::new(line.points.iter().copied(), 8, 6, style))?;
            legend.draw(&DashedPathElement::new(sample, 8, 6, style))?;
        } else {
            chart.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
            chart.draw_series(line.points.iter().map(|p| Circle::new(*p, 4, line.colour.filled())))?;
            legend.draw(&PathElement::new(sample, style))?;
            legend.draw(&Circle::new((24, y), 4, line.colour.filled()))?;
        }
        legend.draw(&Text::new(line.name.clone(), (48, y - 7), ("sans-serif", 15)))?;
    }
    root.present()
}
