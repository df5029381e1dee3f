//! States and profiles as they are written on the command line.

use crate::contract::{v1, variable_message};
use crate::thermo::CollectiveVariable;

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

/// `NAME=CV:LOW:HIGH`, or several intervals joined by `&`.
pub(super) fn state(text: &str) -> Result<v1::State, String> {
    let (name, intervals) = text
        .split_once('=')
        .ok_or_else(|| format!("'{text}' is not NAME=CV:LOW:HIGH, as in right=coordinate(0):0:inf"))?;
    let intervals = intervals
        .split('&')
        .map(|part| {
            let (variable, numbers) = variable_and_numbers::<2>(part)?;
            let [low, high] = numbers;
            Ok(v1::Interval { variable: Some(variable_message(&variable)), low, high })
        })
        .collect::<Result<_, String>>()?;
    Ok(v1::State { name: name.to_string(), intervals })
}

/// `CV:LOW:HIGH:BINS`.
pub(super) fn profile(text: &str) -> Result<v1::ProfileSpec, String> {
    let (variable, [low, high, bins]) = variable_and_numbers::<3>(text)?;
    if bins.fract() != 0.0 || !(1.0..=1e6).contains(&bins) {
        return Err(format!("'{text}': the number of bins must be a positive integer"));
    }
    Ok(v1::ProfileSpec { variable: Some(variable_message(&variable)), low, high, bins: bins as i32 })
}

fn variable_and_numbers<const N: usize>(text: &str) -> Result<(CollectiveVariable, [f64; N]), String> {
    let mut parts = text.split(':');
    let variable = parts.next().unwrap_or_default().parse::<CollectiveVariable>().map_err(|e| e.to_string())?;
    let numbers: Vec<f64> = parts
        .map(|n| n.trim().parse().map_err(|_| format!("'{n}' in '{text}' is not a number")))
        .collect::<Result<_, _>>()?;
    let count = numbers.len();
    let numbers =
        numbers.try_into().map_err(|_| format!("'{text}' has {count} numbers after the variable, not {N}"))?;
    Ok((variable, numbers))
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
}
