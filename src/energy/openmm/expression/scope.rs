//! What the names in an expression mean.

use super::graph::{Graph, Node, TableName};
use std::collections::HashMap;

/// A quantity that a bonded expression may use: a coordinate or a function of named points, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Measure {
    Coordinate { point: u8, axis: u8 },
    Distance([u8; 2]),
    Angle([u8; 3]),
    Dihedral([u8; 4]),
}

/// What the names in an expression mean.
#[derive(Debug, Default)]
pub(in super::super) struct Scope {
    pub names: HashMap<String, Node>,
    pub tables: HashMap<String, TableName>,
    /// How many points p1, p2, … there are, with coordinates x1, y1, z1, …
    pub points: usize,
    /// What the graph's variables measure, where they measure anything.
    pub measures: Vec<Measure>,
}

impl Scope {
    /// The variable that is a measure.
    pub fn measure(&mut self, graph: &mut Graph, measure: Measure) -> Node {
        let known = self.measures.iter().position(|m| *m == measure);
        let index = known.unwrap_or_else(|| {
            self.measures.push(measure);
            self.measures.len() - 1
        });
        graph.variable(index)
    }

    /// The coordinate that a name such as `y2` stands for.
    pub(super) fn coordinate(&self, name: &str) -> Option<Measure> {
        let axis = "xyz".find(name.chars().next()?)? as u8;
        let point = index_of_point(name.get(1..)?, self.points)?;
        Some(Measure::Coordinate { point, axis })
    }
}

/// The point that digits name, counted from 0.
pub(super) fn index_of_point(digits: &str, points: usize) -> Option<u8> {
    let number: usize = digits.parse().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()))?;
    (1..=points).contains(&number).then(|| u8::try_from(number - 1).ok())?
}
