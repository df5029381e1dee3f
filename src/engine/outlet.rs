//! The way from a computing thread to a client, who may stop reading or go away.

use super::EngineError;
use super::frames::FramesError;
use crate::sample::{PathError, SampleError};
use crate::thermo::{BarError, MbarError};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// Why a stream broke off. The index is that of the sample to go on from, in a stream of samples.
#[derive(Debug)]
pub enum StreamError {
    Engine(EngineError),
    /// The model's weights are worse at a temperature than was allowed.
    Uncovered {
        temperature: f64,
        effective_fraction: f64,
        least: f64,
    },
    /// The server drains.
    Draining {
        next_index: Option<u64>,
    },
    /// The client has read nothing for longer than a stream may wait.
    Stalled {
        next_index: Option<u64>,
    },
    /// The time for it was over before anything was there.
    OutOfTime,
    /// Nobody listens any more.
    Gone,
    /// Frames that cannot be read.
    Frames(FramesError),
    /// Samples of two ends that have no difference.
    Difference(BarError),
    /// Samples and frames that have no free energies together.
    Joint(MbarError),
}

impl From<MbarError> for StreamError {
    fn from(error: MbarError) -> Self {
        Self::Joint(error)
    }
}

impl From<FramesError> for StreamError {
    fn from(error: FramesError) -> Self {
        Self::Frames(error)
    }
}

impl From<BarError> for StreamError {
    fn from(error: BarError) -> Self {
        Self::Difference(error)
    }
}

impl From<SampleError> for StreamError {
    fn from(error: SampleError) -> Self {
        Arc::new(error).into()
    }
}

impl From<PathError> for StreamError {
    fn from(error: PathError) -> Self {
        SampleError::from(error).into()
    }
}

impl From<Arc<SampleError>> for StreamError {
    fn from(error: Arc<SampleError>) -> Self {
        Self::Engine(error.into())
    }
}

/// A channel that holds one item: a client that stops reading stops the computation, until the stall is too long.
pub(super) struct Outlet<T> {
    sender: mpsc::Sender<Result<T, StreamError>>,
    /// Room for an error, also where nobody reads; nothing once the stream has ended in order.
    last: Option<mpsc::OwnedPermit<Result<T, StreamError>>>,
    stall: Duration,
    runtime: Handle,
}

impl<T: Send + 'static> Outlet<T> {
    /// Runs `produce` on a thread of its own; what it sends comes out of the receiver, and its error last.
    pub fn run(
        stall: Duration,
        produce: impl FnOnce(&Self) -> Result<(), StreamError> + Send + 'static,
    ) -> mpsc::Receiver<Result<T, StreamError>> {
        let (sender, receiver) = mpsc::channel(2);
        let runtime = Handle::current();
        // The channel is new and empty: there is room.
        if let Ok(last) = sender.clone().try_reserve_owned() {
            tokio::task::spawn_blocking(move || {
                let mut outlet = Self { sender, last: Some(last), stall, runtime };
                let result = produce(&outlet);
                if let Some(last) = outlet.last.take()
                    && let Err(error) = result
                {
                    last.send(Err(error));
                }
            });
        }
        receiver
    }

    /// What comes of a future, on this thread.
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Whether nobody listens any more.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends an item, waiting for the client to read the one before. `next_index` is where a stream that stalls here is
    /// taken up again.
    pub fn send(&self, item: T, next_index: Option<u64>) -> Result<(), StreamError> {
        match self.sender.try_send(Ok(item)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(_)) => Err(StreamError::Gone),
            Err(TrySendError::Full(item)) => {
                match self.runtime.block_on(tokio::time::timeout(self.stall, self.sender.send(item))) {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(_)) => Err(StreamError::Gone),
                    Err(_) => Err(StreamError::Stalled { next_index }),
                }
            }
        }
    }
}

impl<T> Drop for Outlet<T> {
    /// A computation that panics must not look like one that is done.
    fn drop(&mut self) {
        if let Some(last) = self.last.take() {
            last.send(Err(StreamError::Engine(EngineError::Lost)));
        }
    }
}
