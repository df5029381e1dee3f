//! Variables as text, on the command line and in stored plans: a name, and in brackets what the variable is of. Lists are
//! separated by commas, and what is not one list by semicolons.

use super::expression::PERIOD;
use super::{CollectiveVariable, CollectiveVariableError, DEEPEST, DEFAULT_COORDINATION_POWER, shortened};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

const NAMES: [&str; 9] = [
    "coordinate",
    "linear",
    "distance",
    "angle",
    "dihedral",
    "radius_of_gyration",
    "rmsd",
    "coordination",
    "expression",
];

/// All positions of a structure (3N numbers, nm) by its name, or why there are none.
type References<'a> = &'a mut dyn FnMut(&str) -> Result<Vec<f64>, String>;

impl fmt::Display for CollectiveVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coordinate { index } => write!(f, "coordinate({index})"),
            Self::Linear { coefficients } => write!(f, "linear({})", List(coefficients)),
            Self::Distance { atoms } => write!(f, "distance({})", List(atoms)),
            Self::Angle { atoms } => write!(f, "angle({})", List(atoms)),
            Self::Dihedral { atoms } => write!(f, "dihedral({})", List(atoms)),
            Self::RadiusOfGyration { atoms } => write!(f, "radius_of_gyration({})", List(atoms)),
            Self::Rmsd { atoms, reference } => write!(f, "rmsd({};{})", List(atoms), List(reference)),
            Self::Coordination { groups: [first, second], r0, power } => {
                write!(f, "coordination({};{};{r0}", List(first), List(second))?;
                if *power != DEFAULT_COORDINATION_POWER {
                    write!(f, ";{power}")?;
                }
                f.write_str(")")
            }
            Self::Expression { expression, variables, period } => {
                write!(f, "expression({expression}")?;
                variables.iter().try_for_each(|(name, variable)| write!(f, ";{name}={variable}"))?;
                if let Some(period) = period {
                    write!(f, ";{PERIOD}={period}")?;
                }
                f.write_str(")")
            }
        }
    }
}

struct List<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, item) in self.0.iter().enumerate() {
            write!(f, "{}{item}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl From<CollectiveVariable> for String {
    fn from(variable: CollectiveVariable) -> Self {
        variable.to_string()
    }
}

impl TryFrom<String> for CollectiveVariable {
    type Error = CollectiveVariableError;

    fn try_from(text: String) -> Result<Self, CollectiveVariableError> {
        text.parse()
    }
}

impl FromStr for CollectiveVariable {
    type Err = CollectiveVariableError;

    fn from_str(text: &str) -> Result<Self, CollectiveVariableError> {
        let no_files = |_: &str| Err("only the command line reads files; write x, y and z of each atom, in nm".into());
        Self::parse_with(text, no_files)
    }
}

impl CollectiveVariable {
    /// Reads a variable's text, in which `rmsd` may have the name of a structure in the place of a reference's numbers:
    /// `references` is given the name, and answers with all positions of the structure (3N numbers, nm).
    ///
    /// # Errors
    /// [`CollectiveVariableError::Syntax`] when the text is no variable's; [`CollectiveVariableError::Unsuitable`] when it is,
    /// but has no reference, a name twice, or expressions that are too deep in one another.
    pub fn parse_with(
        text: &str,
        mut references: impl FnMut(&str) -> Result<Vec<f64>, String>,
    ) -> Result<Self, CollectiveVariableError> {
        parse(text, &mut references, 1)
    }
}

fn parse(text: &str, references: References<'_>, depth: usize) -> Result<CollectiveVariable, CollectiveVariableError> {
    let text = text.trim();
    let syntax = || CollectiveVariableError::Syntax(shortened(text));
    let unsuitable = |reason: String| CollectiveVariableError::Unsuitable { variable: shortened(text), reason };
    let (name, rest) = text.split_once('(').ok_or_else(syntax)?;
    let inside = rest.strip_suffix(')').ok_or_else(syntax)?;
    let parts = split_outside_brackets(inside, ';');
    let made = match (name.trim(), &parts[..]) {
        ("coordinate", [list]) => array(list).map(|[index]| CollectiveVariable::Coordinate { index }),
        ("linear", [list]) => numbers(list).map(|coefficients| CollectiveVariable::Linear { coefficients }),
        ("distance", [list]) => array(list).map(|atoms| CollectiveVariable::Distance { atoms }),
        ("angle", [list]) => array(list).map(|atoms| CollectiveVariable::Angle { atoms }),
        ("dihedral", [list]) => array(list).map(|atoms| CollectiveVariable::Dihedral { atoms }),
        ("radius_of_gyration", [list]) => numbers(list).map(|atoms| CollectiveVariable::RadiusOfGyration { atoms }),
        ("rmsd", [list, reference]) => match numbers(list) {
            Some(atoms) => {
                let first = reference.split(',').next().unwrap_or_default();
                let reference = if first.trim().parse::<f64>().is_ok() {
                    numbers(reference).ok_or_else(|| unsuitable("a number of its reference is none".into()))?
                } else {
                    named_reference(&atoms, reference.trim(), references).map_err(unsuitable)?
                };
                Some(CollectiveVariable::Rmsd { atoms, reference })
            }
            None => None,
        },
        ("coordination", [first, second, r0, power @ ..]) => {
            let power = match power {
                [] => Some(DEFAULT_COORDINATION_POWER),
                [power] => power.trim().parse().ok().filter(|power| *power > 0),
                _ => None,
            };
            (|| {
                let groups = [numbers(first)?, numbers(second)?];
                Some(CollectiveVariable::Coordination { groups, r0: r0.trim().parse().ok()?, power: power? })
            })()
        }
        ("expression", [expression, definitions @ ..]) => {
            if depth > DEEPEST {
                return Err(unsuitable(format!("expressions are nested more than {DEEPEST} deep")));
            }
            return expression_of(expression, definitions, references, depth, unsuitable);
        }
        _ => None,
    };
    made.ok_or_else(syntax)
}

/// What follows a semicolon is a variable if it has the form of one, the period, or part of the expression.
fn expression_of(
    expression: &str,
    definitions: &[&str],
    references: References<'_>,
    depth: usize,
    unsuitable: impl Fn(String) -> CollectiveVariableError,
) -> Result<CollectiveVariable, CollectiveVariableError> {
    let (mut expression, mut variables, mut period) = (expression.to_string(), BTreeMap::new(), None);
    for part in definitions {
        match part.split_once('=').map(|(name, value)| (name.trim(), value.trim())) {
            Some((PERIOD, value)) => {
                let number = multiple_of_pi(value).filter(|period| period.is_finite() && *period > 0.0);
                let value = number.ok_or_else(|| {
                    let shown = shortened(value);
                    unsuitable(format!("its period '{shown}' is no positive number; write 6.283185307179586, or 2pi"))
                })?;
                if period.replace(value).is_some() {
                    return Err(unsuitable("it has two periods".into()));
                }
            }
            Some((name, value)) if is_variable(value) => {
                let variable = parse(value, references, depth + 1)?;
                if variables.insert(name.to_string(), variable).is_some() {
                    return Err(unsuitable(format!("'{name}' is the name of two variables in it")));
                }
            }
            _ => {
                expression.push(';');
                expression.push_str(part);
            }
        }
    }
    let expression = expression.trim().to_string();
    Ok(CollectiveVariable::Expression { expression, variables, period })
}

fn is_variable(text: &str) -> bool {
    text.split_once('(').is_some_and(|(name, _)| NAMES.contains(&name.trim()))
}

/// A number, or a multiple of π such as `2pi`.
fn multiple_of_pi(text: &str) -> Option<f64> {
    match text.strip_suffix("pi") {
        None => text.parse().ok(),
        Some("") => Some(std::f64::consts::PI),
        Some(factor) => factor.trim().parse::<f64>().ok().map(|factor| factor * std::f64::consts::PI),
    }
}

/// The positions of some atoms, or of all if none is named, in a structure that has a name.
fn named_reference(atoms: &[usize], name: &str, references: References<'_>) -> Result<Vec<f64>, String> {
    if name.is_empty() {
        return Err("it has no reference after the semicolon".into());
    }
    let positions = references(name).map_err(|reason| format!("its reference '{}': {reason}", shortened(name)))?;
    if atoms.is_empty() {
        return Ok(positions);
    }
    let places = positions.as_chunks::<3>().0;
    let place = |&atom: &usize| {
        let missing = || format!("its reference '{}' has {} atoms, and no atom {atom}", shortened(name), places.len());
        places.get(atom).copied().ok_or_else(missing)
    };
    Ok(atoms.iter().map(place).collect::<Result<Vec<_>, _>>()?.into_flattened())
}

/// The numbers of a list, which may be empty.
fn numbers<T: FromStr>(list: &str) -> Option<Vec<T>> {
    if list.trim().is_empty() {
        return Some(Vec::new());
    }
    list.split(',').map(|item| item.trim().parse().ok()).collect()
}

fn array<T: FromStr, const N: usize>(list: &str) -> Option<[T; N]> {
    numbers(list)?.try_into().ok()
}

/// The parts of a text between separators that are not in brackets.
pub fn split_outside_brackets(text: &str, separator: char) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0usize, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth = depth.saturating_add(1),
            ')' => depth = depth.saturating_sub(1),
            _ if c == separator && depth == 0 => {
                parts.push(&text[start..at]);
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}
