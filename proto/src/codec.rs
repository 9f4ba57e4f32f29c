//! The codec of the generated clients and servers.

use std::marker::PhantomData;

use bytes::Buf as _;
use prost::{Message, Name};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstEncoder};

use crate::strict::{self, Scan};

/// Protobuf over gRPC, strict where requests are read.
///
/// Messages that some method takes (`AdmitRequest` and its like, read by servers) are scanned
/// before they are decoded: unknown fields, repeated singular fields, unknown enum values and
/// malformed bytes are refused with `INVALID_ARGUMENT`, the field's path and the remedy. Answers,
/// read by clients, are decoded leniently: a client must understand a newer server.
pub struct StrictCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> std::fmt::Debug for StrictCodec<T, U> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StrictCodec")
    }
}

impl<T, U> Default for StrictCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for StrictCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Name + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = StrictDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        StrictDecoder { scan: strict::request_scan::<U>(), message: PhantomData }
    }
}

/// The reading half of [`StrictCodec`].
#[derive(Debug)]
pub struct StrictDecoder<U> {
    /// Present if `U` is what some method takes.
    scan: Option<Scan>,
    message: PhantomData<U>,
}

impl<U: Message + Default> Decoder for StrictDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        if let Some(scan) = &self.scan {
            let bytes = source.chunk();
            if bytes.len() != source.remaining() {
                return Err(Status::internal("the message is not in one piece"));
            }
            scan.run(bytes).map_err(|fault| fault.to_status())?;
        }
        let decoded = U::decode(source);
        decoded.map(Some).map_err(|error| Status::internal(format!("undecodable message: {error}")))
    }
}
