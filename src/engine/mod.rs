//! The engine: loaded models, the device that they run on, and the threads that compute.
//!
//! Nothing here runs on an async thread. Sampling and training take turns on the device ([`DeviceSlot`]): samplers hold it
//! for a batch that they share (`shared_batches`), training for one step, and samplers go first.

mod annealed;
mod background;
mod density;
mod device_slot;
mod difference;
mod ends;
mod estimation;
mod frames;
mod joint;
mod joint_run;
mod lookout;
mod models;
mod outlet;
mod plans;
mod remembered;
mod sampling;
mod shared_batches;
mod source;

pub use annealed::AnnealedRequest;
pub use density::{Densities, DensityRequest};
pub use device_slot::{DeviceSlot, Priority, SlotGuard};
pub use difference::{DifferenceItem, DifferenceRequest, EndPoint, EndReport};
pub use estimation::{EstimateItem, EstimateRequest, TemperatureEstimate};
pub use frames::{Frames, FramesError, MOST_FRAMES};
pub use joint::{JointItem, JointRequest, JointState, MOST_SOLVED, UsedFrames};
pub use lookout::Lookout;
pub use models::{EngineError, LoadedModel, Models};
pub use outlet::StreamError;
pub use plans::{
    ChainsRequest, Decision, ESCALATION_COST, Furthest, GivenUp, MOST_BYTES, Plan, PlanRequest, PopulationsRequest,
    Trial, bytes_of_rows,
};
pub use sampling::{SampleItem, SampleRequest, StopCause};

pub use source::ChainSummary;

use crate::metrics::Metrics;
use candle_core::Device;
use shared_batches::SharedBatches;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What computes: a device, its slot, the models on it, and room for so many streams at a time.
#[derive(Clone)]
pub struct Engine {
    pub device: Device,
    pub slot: Arc<DeviceSlot>,
    pub models: Arc<Models>,
    metrics: Metrics,
    batches: Arc<SharedBatches>,
    streams: Arc<Semaphore>,
    /// How long a stream waits for a client that does not read.
    stall: Duration,
}

impl Engine {
    pub fn new(device: Device, models: Models, metrics: Metrics, max_streams: usize, stall: Duration) -> Self {
        Self {
            device,
            slot: Arc::new(DeviceSlot::default()),
            models: Arc::new(models),
            metrics,
            batches: Arc::default(),
            streams: Arc::new(Semaphore::new(max_streams)),
            stall,
        }
    }

    /// Room for one stream, held until it is dropped; nothing if all are taken.
    pub fn admit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.streams).try_acquire_owned().ok()
    }
}
