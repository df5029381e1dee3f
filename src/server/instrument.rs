//! A layer around every call: a span, metrics by method and status, and an ErrorInfo on errors that the transport made.
//!
//! A call ends when its response body ends: an error of a stream is in the trailers, and a stream that the client drops
//! has none.

use super::errors::with_error_info;
use crate::contract::v1;
use crate::metrics::Metrics;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::{Instrument as _, Span, info, info_span};

const DETAILS: &str = "grpc-status-details-bin";

/// Wraps services in [`Instrumented`].
#[derive(Clone)]
pub(super) struct InstrumentLayer {
    pub metrics: Metrics,
}

impl<S> Layer<S> for InstrumentLayer {
    type Service = Instrumented<S>;

    fn layer(&self, inner: S) -> Instrumented<S> {
        Instrumented { inner, metrics: self.metrics.clone() }
    }
}

/// A service whose calls are counted and timed.
#[derive(Clone)]
pub(super) struct Instrumented<S> {
    inner: S,
    metrics: Metrics,
}

/// A method as metrics name it; unknown ones share one name, so that clients cannot make labels.
#[derive(Clone, Debug)]
struct Method {
    kind: &'static str,
    service: &'static str,
    name: &'static str,
}

impl Method {
    fn of(path: &str) -> Self {
        let unknown = Self { kind: "unary", service: "unknown", name: "unknown" };
        let mut parts = path.trim_start_matches('/').splitn(2, '/');
        let (Some(service), Some(name)) = (parts.next(), parts.next()) else { return unknown };
        METHODS.iter().find(|m| m.1 == service && m.2 == name).map_or(unknown, |&(kind, service, name)| Self {
            kind,
            service,
            name,
        })
    }

    fn labels(&self) -> [&'static str; 3] {
        [self.kind, self.service, self.name]
    }
}

#[rustfmt::skip]
const METHODS: &[(&str, &str, &str)] = &[
    ("unary", v1::system_service_server::SERVICE_NAME, "CreateSystem"),
    ("unary", v1::system_service_server::SERVICE_NAME, "GetSystem"),
    ("unary", v1::system_service_server::SERVICE_NAME, "ListSystems"),
    ("unary", v1::system_service_server::SERVICE_NAME, "DeleteSystem"),
    ("unary", v1::system_service_server::SERVICE_NAME, "EvaluateEnergy"),
    ("client_stream", v1::dataset_service_server::SERVICE_NAME, "UploadDataset"),
    ("unary", v1::dataset_service_server::SERVICE_NAME, "GetDataset"),
    ("unary", v1::dataset_service_server::SERVICE_NAME, "ListDatasets"),
    ("unary", v1::dataset_service_server::SERVICE_NAME, "DeleteDataset"),
    ("server_stream", v1::dataset_service_server::SERVICE_NAME, "DownloadDataset"),
    ("unary", v1::job_service_server::SERVICE_NAME, "CreateJob"),
    ("unary", v1::job_service_server::SERVICE_NAME, "GetJob"),
    ("unary", v1::job_service_server::SERVICE_NAME, "ListJobs"),
    ("server_stream", v1::job_service_server::SERVICE_NAME, "WatchJob"),
    ("unary", v1::job_service_server::SERVICE_NAME, "CancelJob"),
    ("unary", v1::job_service_server::SERVICE_NAME, "DeleteJob"),
    ("unary", v1::model_service_server::SERVICE_NAME, "GetModel"),
    ("unary", v1::model_service_server::SERVICE_NAME, "ListModels"),
    ("unary", v1::model_service_server::SERVICE_NAME, "DeleteModel"),
    ("server_stream", v1::model_service_server::SERVICE_NAME, "ExportModel"),
    ("client_stream", v1::model_service_server::SERVICE_NAME, "ImportModel"),
    ("unary", v1::model_service_server::SERVICE_NAME, "EvaluateLogProb"),
    ("server_stream", v1::sampling_service_server::SERVICE_NAME, "StreamSamples"),
    ("server_stream", v1::free_energy_service_server::SERVICE_NAME, "EstimateFreeEnergy"),
    ("server_stream", v1::free_energy_service_server::SERVICE_NAME, "EstimateFreeEnergyDifference"),
    ("client_stream", v1::free_energy_service_server::SERVICE_NAME, "SolveMbar"),
    ("unary", "grpc.health.v1.Health", "Check"),
    ("server_stream", "grpc.health.v1.Health", "Watch"),
];

impl<S> Service<Request<Body>> for Instrumented<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = Method::of(request.uri().path());
        self.metrics.grpc_started.with_label_values(&method.labels()).inc();
        let id = uuid::Uuid::now_v7().simple().to_string();
        let span = info_span!("call", service = method.service, method = method.name, request = %id);
        // The service that was found ready is the one to call.
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        let watch =
            CallWatch { metrics: self.metrics.clone(), method, since: Instant::now(), code: None, span: span.clone() };
        let future = async move {
            let response = inner.call(request).await?;
            let (mut parts, body) = response.into_parts();
            if let Ok(id) = HeaderValue::from_str(&id) {
                parts.headers.insert("x-request-id", id);
            }
            let mut watch = watch;
            watch.code = complete(&mut parts.headers);
            Ok(Response::from_parts(parts, Body::new(WatchedBody { inner: body, watch })))
        };
        Box::pin(future.instrument(span))
    }
}

/// The status in headers or trailers, if there is one; an error without details is given some.
fn complete(headers: &mut HeaderMap) -> Option<Code> {
    let status = Status::from_header_map(headers)?;
    if status.code() != Code::Ok && !headers.contains_key(DETAILS) {
        // A header map that cannot take the details keeps what it had.
        let _ = with_error_info(&status).add_header(headers);
    }
    Some(status.code())
}

/// Counts a call when it ends, however it ends.
struct CallWatch {
    metrics: Metrics,
    method: Method,
    since: Instant,
    code: Option<Code>,
    /// Names the call in the log, with its request id.
    span: Span,
}

impl Drop for CallWatch {
    fn drop(&mut self) {
        let _inside = self.span.enter();
        let code = self.code.map_or("Canceled", name_of);
        let seconds = self.since.elapsed().as_secs_f64();
        let [kind, service, name] = self.method.labels();
        self.metrics.grpc_handled.with_label_values(&[kind, service, name, code]).inc();
        self.metrics.grpc_seconds.with_label_values(&[kind, service, name]).observe(seconds);
        info!(code, seconds, "call ended");
    }
}

/// The names that go-grpc-prometheus gives to codes.
fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// A response body that looks for the status in its trailers.
struct WatchedBody {
    inner: Body,
    watch: CallWatch,
}

impl HttpBody for WatchedBody {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<bytes::Bytes>, Status>>> {
        let span = self.watch.span.clone();
        let _inside = span.enter();
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = polled {
            return Poll::Ready(Some(Ok(match frame.into_trailers() {
                Ok(mut trailers) => {
                    self.watch.code = complete(&mut trailers).or(self.watch.code);
                    Frame::trailers(trailers)
                }
                Err(frame) => frame,
            })));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
