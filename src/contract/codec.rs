//! The protobuf codec, with the error that a malformed message deserves: it is the client's, and says which field.

use prost::Message;
use std::marker::PhantomData;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};

/// Encodes `T`, decodes `U`.
#[derive(Clone, Debug)]
pub struct StrictCodec<T, U> {
    _marker: PhantomData<(T, U)>,
}

impl<T, U> Default for StrictCodec<T, U> {
    fn default() -> Self {
        Self { _marker: PhantomData }
    }
}

impl<T, U> Codec for StrictCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = SizedEncoder<T>;
    type Decoder = StrictDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        SizedEncoder { _marker: PhantomData }
    }

    fn decoder(&mut self) -> Self::Decoder {
        StrictDecoder { _marker: PhantomData }
    }
}

/// Encodes `T`, in a buffer that need not grow: a message of samples is a megabyte.
#[derive(Clone, Debug)]
pub struct SizedEncoder<T> {
    _marker: PhantomData<T>,
}

impl<T: Message> Encoder for SizedEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(item.encoded_len());
        item.encode(buffer).map_err(|e| Status::internal(format!("the message does not fit: {e}")))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

/// Decodes `U`.
#[derive(Clone, Debug)]
pub struct StrictDecoder<U> {
    _marker: PhantomData<U>,
}

impl<U: Message + Default> Decoder for StrictDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::decode(buffer)
            .map(Some)
            .map_err(|e| Status::new(Code::InvalidArgument, format!("the message is malformed: {e}")))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}
