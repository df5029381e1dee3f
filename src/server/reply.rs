//! A stream of messages to a client that may stop reading.

use super::errors::ApiError;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// The server's end of a stream. It waits for the client to read, though not for ever.
pub(super) struct Reply<T> {
    sender: mpsc::Sender<Result<T, Status>>,
    /// Room for an error, also where nobody reads; nothing once the stream has ended.
    last: Option<mpsc::OwnedPermit<Result<T, Status>>>,
    stall: Duration,
}

impl<T: Send + 'static> Reply<T> {
    /// Both ends of a stream; `produce` sends its messages.
    pub fn stream<F: Future<Output = ()> + Send + 'static>(
        stall: Duration,
        produce: impl FnOnce(Self) -> F,
    ) -> ReceiverStream<Result<T, Status>> {
        let (sender, receiver) = mpsc::channel(2);
        // The channel is new and empty: there is room.
        if let Ok(last) = sender.clone().try_reserve_owned() {
            tokio::spawn(produce(Self { sender, last: Some(last), stall }));
        }
        ReceiverStream::new(receiver)
    }

    /// Sends a message; nothing is left to send to if the client has gone away or has stopped reading. `next_index` is where
    /// a stream that stalls here is taken up again, if not at its beginning.
    pub async fn send(self, message: T, next_index: Option<u64>) -> Option<Self> {
        match tokio::time::timeout(self.stall, self.sender.send(Ok(message))).await {
            Ok(Ok(())) => Some(self),
            // A client that goes away is nobody's failure.
            Ok(Err(_)) => {
                self.finish();
                None
            }
            Err(_) => {
                self.fail(ApiError::Stalled { next_index });
                None
            }
        }
    }

    /// Ends the stream without an error.
    pub fn finish(mut self) {
        self.last = None;
    }

    /// Ends the stream with an error.
    pub fn fail(mut self, error: ApiError) {
        if let Some(last) = self.last.take() {
            last.send(Err(error.into()));
        }
    }
}

impl<T> Drop for Reply<T> {
    /// A stream that is given up half way must not look like one that is done.
    fn drop(&mut self) {
        if let Some(last) = self.last.take() {
            last.send(Err(ApiError::Internal("a stream ended before its time".into()).into()));
        }
    }
}
