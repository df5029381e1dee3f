//! The coordination number.

use super::points::{Points, add_at, at};

/// The largest n.
const MOST_POWER: u32 = 64;

/// Σ 1/(1 + (r/r0)ⁿ) over pairs: what (1 − (r/r0)ⁿ)/(1 − (r/r0)²ⁿ) is, without its 0/0 at r = r0.
#[derive(Debug)]
pub(super) struct Coordination {
    groups: [Vec<usize>; 2],
    r0: f64,
    power: i32,
}

impl Coordination {
    pub fn new(groups: &[Vec<usize>; 2], r0: f64, power: u32, points: &Points) -> Result<Self, String> {
        for (name, group) in ["first", "second"].iter().zip(groups) {
            if group.is_empty() {
                return Err(format!("its {name} group is empty; name the atoms that it counts"));
            }
            points.check(group).map_err(|reason| format!("in its {name} group {reason}"))?;
        }
        if let ([a], [b]) = (&groups[0][..], &groups[1][..])
            && a == b
        {
            return Err(format!("both groups are atom {a} alone, and no atom is its own neighbour"));
        }
        if !(r0.is_finite() && r0 > 0.0) {
            return Err(format!("r0 is {r0}; it must be a positive finite number, in nm"));
        }
        match i32::try_from(power) {
            Ok(power) if (1..=MOST_POWER as i32).contains(&power) => Ok(Self { groups: groups.clone(), r0, power }),
            _ => Err(format!("n is {power}; it must be from 1 to {MOST_POWER}")),
        }
    }

    pub fn terms(&self) -> usize {
        self.groups[0].len().saturating_mul(self.groups[1].len())
    }

    /// An atom that is in both groups is no neighbour of itself.
    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let [first, second] = &self.groups;
        first.iter().flat_map(|&a| second.iter().filter(move |&&b| b != a).map(move |&b| (a, b)))
    }

    pub fn value(&self, x: &[f64]) -> f64 {
        self.pairs().map(|(a, b)| 1.0 / (1.0 + self.ratio(between(x, a, b)))).sum()
    }

    /// (r/r0)ⁿ.
    fn ratio(&self, between: [f64; 3]) -> f64 {
        (square(between).sqrt() / self.r0).powi(self.power)
    }

    pub fn add_gradient(&self, x: &[f64], scale: f64, gradient: &mut [f64]) {
        for (a, b) in self.pairs() {
            let between = between(x, a, b);
            let (ratio, squared) = (self.ratio(between), square(between));
            // Where atoms meet, a sum of even steepness is level.
            if squared == 0.0 && self.power > 1 {
                continue;
            }
            // 1 − f is ratio/(1 + ratio), in the form that stands an infinite ratio.
            let slope = -f64::from(self.power) / (squared * (1.0 + ratio) * (1.0 + ratio.recip()));
            add_at(gradient, a, scale * slope, between);
            add_at(gradient, b, -scale * slope, between);
        }
    }
}

fn between(x: &[f64], a: usize, b: usize) -> [f64; 3] {
    let (a, b) = (at(x, a), at(x, b));
    [0, 1, 2].map(|k| a[k] - b[k])
}

fn square(v: [f64; 3]) -> f64 {
    v.iter().map(|v| v * v).sum()
}
