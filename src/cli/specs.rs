//! States and profiles as they are written on the command line.

use crate::contract::{v1, variable_message};
use crate::energy::openmm::Topology;
use crate::thermo::{CollectiveVariable, split_outside_brackets};

/// A temperature in the system's unit.
pub(super) fn temperature(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(t) if t.is_finite() && t > 0.0 => Ok(t),
        _ => Err("it must be a positive finite number".into()),
    }
}

/// Seconds, as a duration.
pub(super) fn seconds(text: &str) -> Result<prost_types::Duration, String> {
    let duration = text.parse::<f64>().ok().filter(|s| *s > 0.0).map(std::time::Duration::try_from_secs_f64);
    let duration = duration.and_then(Result::ok).and_then(|d| prost_types::Duration::try_from(d).ok());
    duration.ok_or_else(|| "it must be a positive number of seconds".into())
}

/// `LOW:HIGH`.
pub(super) fn temperature_range(text: &str) -> Result<v1::TemperatureRange, String> {
    let (low, high) = text.split_once(':').ok_or_else(|| format!("'{text}' is not LOW:HIGH, as in 300:600"))?;
    let range = v1::TemperatureRange { low: temperature(low)?, high: temperature(high)? };
    if range.low < range.high { Ok(range) } else { Err(format!("'{text}' does not go up")) }
}

/// A collective variable. The reference of an `rmsd` may be the name of a PDB file, whose first model it then is.
pub(super) fn variable(text: &str) -> Result<CollectiveVariable, String> {
    let structure = |name: &str| {
        let text = std::fs::read_to_string(name).map_err(|error| error.to_string())?;
        Ok(Topology::from_pdb(&text).map_err(|error| error.to_string())?.positions)
    };
    CollectiveVariable::parse_with(text, structure).map_err(|error| error.to_string())
}

/// `NAME=CV:LOW:HIGH`, or several intervals joined by `&`.
pub(super) fn state(text: &str) -> Result<v1::State, String> {
    let (name, intervals) = text
        .split_once('=')
        .ok_or_else(|| format!("'{text}' is not NAME=CV:LOW:HIGH, as in right=coordinate(0):0:inf"))?;
    let intervals = split_outside_brackets(intervals, '&')
        .into_iter()
        .map(|part| {
            let (variable, rest) = variable_and_rest(part)?;
            let [low, high] = numbers(part, &rest)?;
            Ok(v1::Interval { variable: Some(variable_message(&variable)), low, high })
        })
        .collect::<Result<_, String>>()?;
    Ok(v1::State { name: name.to_string(), intervals })
}

/// `CV:LOW:HIGH:BINS`, or two of these joined by `&`; a single one may be followed by `:kde` or `:kde=BANDWIDTH`.
pub(super) fn profile(text: &str) -> Result<v1::ProfileSpec, String> {
    match split_outside_brackets(text, '&')[..] {
        [first] => {
            let (variable, mut rest) = variable_and_rest(first)?;
            let kernel_density = rest.pop_if(|last| last.trim().starts_with(KERNEL)).map(kernel_density).transpose()?;
            let first = axis(first, &variable, &rest)?;
            Ok(spec(first, None, kernel_density))
        }
        [first, second] => {
            let [first, second] = [first, second].map(|part| {
                let (variable, rest) = variable_and_rest(part)?;
                axis(part, &variable, &rest)
            });
            Ok(spec(first?, Some(second?), None))
        }
        _ => Err(format!("'{text}' is of more than two variables")),
    }
}

/// What asks for a kernel density.
const KERNEL: &str = "kde";

fn spec(
    first: v1::ProfileAxis,
    second: Option<v1::ProfileAxis>,
    kernel_density: Option<v1::KernelDensity>,
) -> v1::ProfileSpec {
    let v1::ProfileAxis { variable, low, high, bins } = first;
    v1::ProfileSpec { variable, low, high, bins, second, kernel_density }
}

fn kernel_density(text: &str) -> Result<v1::KernelDensity, String> {
    let bandwidth = match text.trim().strip_prefix(KERNEL).map(|rest| rest.strip_prefix('=')) {
        Some(None) if text.trim() == KERNEL => 0.0,
        Some(Some(number)) => match number.parse() {
            Ok(bandwidth) if bandwidth > 0.0 => bandwidth,
            _ => return Err(format!("the bandwidth '{number}' is not a positive number")),
        },
        _ => return Err(format!("'{text}' is neither {KERNEL} nor {KERNEL}=BANDWIDTH")),
    };
    Ok(v1::KernelDensity { bandwidth })
}

fn axis(text: &str, variable: &CollectiveVariable, rest: &[&str]) -> Result<v1::ProfileAxis, String> {
    let [low, high, bins] = numbers(text, rest)?;
    if bins.fract() != 0.0 || !(1.0..=1e6).contains(&bins) {
        return Err(format!("'{text}': the number of bins must be a positive integer"));
    }
    Ok(v1::ProfileAxis { variable: Some(variable_message(variable)), low, high, bins: bins as i32 })
}

/// A variable, and what stands behind it between colons.
fn variable_and_rest(text: &str) -> Result<(CollectiveVariable, Vec<&str>), String> {
    let mut parts = split_outside_brackets(text, ':');
    let rest = parts.split_off(1);
    Ok((variable(parts.first().copied().unwrap_or_default())?, rest))
}

fn numbers<const N: usize>(text: &str, parts: &[&str]) -> Result<[f64; N], String> {
    let numbers: Vec<f64> = parts
        .iter()
        .map(|n| n.trim().parse().map_err(|_| format!("'{n}' in '{text}' is not a number")))
        .collect::<Result<_, _>>()?;
    let count = numbers.len();
    numbers.try_into().map_err(|_| format!("'{text}' has {count} numbers after the variable, not {N}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_read_and_misspellings_explained() {
        let s = state("right=coordinate(0):0:inf&linear(1,-1):-2:3.5").unwrap();
        assert_eq!((s.name.as_str(), s.intervals.len()), ("right", 2));
        assert_eq!(s.intervals[0].high, f64::INFINITY);
        let p = profile("dihedral(4,6,8,14):-3.14159:3.14159:36").unwrap();
        assert_eq!(p.bins, 36);
        for bad in ["coordinate(0):0:1", "a=coordinate(0):0", "a=phi:0:1", "a=coordinate(0):0:x"] {
            assert!(state(bad).is_err(), "{bad}");
        }
        assert!(profile("coordinate(0):0:1:2.5").is_err());
    }

    #[test]
    fn profiles_of_two_variables_and_kernel_densities() {
        let p =
            profile("dihedral(4,6,8,14):-3.1:3.1:36&expression(a-b;a=distance(0,1);b=distance(1,2)):0:1:9").unwrap();
        let second = p.second.unwrap();
        assert_eq!((p.bins, second.bins, second.high, p.kernel_density), (36, 9, 1.0, None));
        let bandwidth = |text: &str| profile(text).map(|p| p.kernel_density.map(|kernel| kernel.bandwidth));
        assert_eq!(bandwidth("coordinate(0):-2:2:50:kde"), Ok(Some(0.0)));
        assert_eq!(bandwidth("coordinate(0):-2:2:50:kde=0.05"), Ok(Some(0.05)));
        assert_eq!(bandwidth("coordinate(0):-2:2:50"), Ok(None));
        for bad in [
            "coordinate(0):-2:2:50:kde=0",
            "coordinate(0):-2:2:50:kde=x",
            "coordinate(0):-2:2:50:kdes",
            "coordinate(0):-2:2:50:kde&coordinate(1):0:1:2",
            "coordinate(0):0:1:2&coordinate(1):0:1:2&coordinate(0):0:1:2",
        ] {
            assert!(profile(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn references_come_from_pdb_files() {
        let pdb = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/alanine-dipeptide/topology.pdb");
        let positions = Topology::from_pdb(&std::fs::read_to_string(pdb).unwrap()).unwrap().positions;
        let CollectiveVariable::Rmsd { atoms, reference } = variable(&format!("rmsd(8,6;{pdb})")).unwrap() else {
            panic!("no rmsd")
        };
        assert_eq!((atoms, &reference[..3], &reference[3..]), (vec![8, 6], &positions[24..27], &positions[18..21]));
        let within = variable(&format!("expression(2*r;r=rmsd(;{pdb}))")).unwrap().to_string();
        assert_eq!(within.matches(',').count(), positions.len() - 1);
        assert!(variable(&format!("rmsd(99;{pdb})")).unwrap_err().contains("no atom 99"));
        assert!(variable("rmsd(0,1;no-such-file.pdb)").unwrap_err().contains("no-such-file.pdb"));
        let s = state(&format!("near=rmsd(;{pdb}):0:0.1")).unwrap();
        assert_eq!(s.intervals[0].high, 0.1);
    }
}
