//! Methods by which each sample stands for itself, with a density and a weight of its own.

use crate::contract::{FieldError, v1};
use crate::sample::Method;

/// Why others are refused where a density is needed.
pub(super) const NO_DENSITY: &str = "its samples come from no density that is known";

/// The method asked for; nothing if the server is to choose. Others are refused by name, and why.
pub(super) fn independent_method(number: i32, why: &str) -> Result<Option<Method>, FieldError> {
    use v1::SamplingMethod as M;
    match M::try_from(number) {
        Ok(M::Unspecified | M::Auto) => Ok(None),
        Ok(M::Reweighting) => Ok(Some(Method::Reweighting)),
        Ok(M::LatentScaling) => Ok(Some(Method::LatentScaling)),
        Ok(M::Conditioned) => Ok(Some(Method::Conditioned)),
        Ok(other) => {
            let name = other.as_str_name().trim_start_matches("SAMPLING_METHOD_");
            let reason = format!("it is {name}; {why}: use AUTO, REWEIGHTING, LATENT_SCALING or CONDITIONED");
            Err(FieldError::invalid("method", reason))
        }
        Err(_) => Err(FieldError::invalid("method", format!("{number} is not a SamplingMethod"))),
    }
}
