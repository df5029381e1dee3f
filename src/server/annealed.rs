//! How annealed samples are asked for and answered.

use crate::contract::{FieldError, v1};
use crate::engine::AnnealedRequest;
use crate::sample::{AnnealedPaths, PathLength, STEP_SIZES};

/// What is taken where a request says nothing.
const DEFAULT: PathLength = PathLength { distributions: 8, moves: 1, leapfrog_steps: 5 };

/// The paths that are taken where nothing is said, with step sizes that are tuned.
pub(super) fn default_paths() -> AnnealedRequest {
    AnnealedRequest { length: DEFAULT, step_sizes: None }
}

fn invalid(field: &str, reason: String) -> FieldError {
    FieldError::invalid(field, reason)
}

/// The paths asked for; nothing if samples are not to be annealed.
pub(super) fn requested_paths(request: &v1::StreamSamplesRequest) -> Result<Option<AnnealedRequest>, FieldError> {
    if request.method() != v1::SamplingMethod::Annealed {
        return match request.annealed {
            Some(_) => Err(invalid("annealed", "it belongs to the method ANNEALED; set method to it".into())),
            None => Ok(None),
        };
    }
    if request.least_effective_fraction != 0.0 {
        let reason = "no pilot of annealed samples is weighed; leave it out with ANNEALED";
        return Err(invalid("least_effective_fraction", reason.into()));
    }
    let message = request.annealed.clone().unwrap_or_default();
    let size = |field: &str, value: i64, default: usize| match usize::try_from(value) {
        Ok(0) => Ok(default),
        Ok(value) => Ok(value),
        Err(_) => {
            Err(invalid(&format!("annealed.{field}"), format!("{value} is negative; use 0 for the default, {default}")))
        }
    };
    let length = PathLength {
        distributions: size("distributions", message.distributions, DEFAULT.distributions)?,
        moves: size("moves", message.moves, DEFAULT.moves)?,
        leapfrog_steps: size("leapfrog_steps", message.leapfrog_steps, DEFAULT.leapfrog_steps)?,
    };
    length.check().map_err(|sentence| FieldError::from_sentence("annealed.", &sentence))?;
    let step_sizes = match message.step_sizes.as_slice() {
        [] => None,
        given => Some(step_sizes("annealed.step_sizes", given, length.distributions)?),
    };
    Ok(Some(AnnealedRequest { length, step_sizes }))
}

/// Step sizes for so many distributions: one for each, or one for all.
pub(super) fn step_sizes(field: &str, given: &[f64], count: usize) -> Result<Vec<f64>, FieldError> {
    let (least, most) = (STEP_SIZES.start(), STEP_SIZES.end());
    if let Some(size) = given.iter().find(|size| !STEP_SIZES.contains(size)) {
        return Err(invalid(field, format!("one is {size}; they must be from {least:e} to {most}")));
    }
    match given {
        &[one] => Ok(vec![one; count]),
        each if each.len() == count => Ok(each.to_vec()),
        each => {
            let reason = format!("there are {} for {count} distributions; give one for each, or one", each.len());
            Err(invalid(field, reason))
        }
    }
}

pub(super) fn paths_message(paths: AnnealedPaths) -> v1::AnnealedPaths {
    v1::AnnealedPaths {
        distributions: paths.length.distributions as i64,
        moves: paths.length.moves as i64,
        leapfrog_steps: paths.length.leapfrog_steps as i64,
        step_sizes: paths.step_sizes,
    }
}
