//! Drawing from a flow: latents, the forward pass, log q.

use super::super::client::CliError;
use super::flows::FlowShape;
use super::workload::Setting;
use crate::flow::LatentAddress;
use crate::math::Purpose;

/// Items of a call, and seconds of the median call.
pub(super) fn run(shape: &FlowShape, setting: &Setting) -> Result<(f64, f64), CliError> {
    let flow = shape.flow(&setting.device)?.with_precision(setting.precision);
    let mut next = 0;
    let seconds = setting.pace.time(|| {
        let addresses = fresh(&mut next, shape.batch);
        flow.draw(&addresses).map(drop).map_err(|e| CliError::failed(e.to_string()))
    })?;
    Ok((shape.batch as f64, seconds))
}

/// Addresses that were not drawn from before: no call finds the work of another done.
pub(super) fn fresh(next: &mut u64, n: usize) -> Vec<LatentAddress> {
    let first = *next;
    *next += n as u64;
    (first..*next).map(|index| LatentAddress { seed: 0, purpose: Purpose::Sample, index, tau: 1.0 }).collect()
}
