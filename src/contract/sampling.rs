//! Methods of sampling.

use super::v1;
use crate::sample::Method;

pub fn method_message(method: Method) -> v1::SamplingMethod {
    match method {
        Method::Reweighting => v1::SamplingMethod::Reweighting,
        Method::LatentScaling => v1::SamplingMethod::LatentScaling,
        Method::Conditioned => v1::SamplingMethod::Conditioned,
    }
}
