//! A tonic codec for messages that are known by descriptor only: what is asked is encoded here, what is answered stays as it is encoded.

use bytes::{Buf as _, Bytes};
use prost::Message as _;
use prost_reflect::DynamicMessage;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Encodes any message, hands over encoded ones.
#[derive(Debug, Clone, Copy)]
pub struct DynCodec;

impl Codec for DynCodec {
    type Encode = DynamicMessage;
    type Decode = Bytes;
    type Encoder = DynCodec;
    type Decoder = DynCodec;

    fn encoder(&mut self) -> DynCodec {
        DynCodec
    }

    fn decoder(&mut self) -> DynCodec {
        DynCodec
    }
}

impl Encoder for DynCodec {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, item: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer).map_err(|e| Status::internal(e.to_string()))
    }
}

impl Decoder for DynCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length)))
    }
}
