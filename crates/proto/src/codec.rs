//! Messages in buffers that begin small and grow to what a message needs: a scheduler has streams of a thousand hosts open, most of which say a few bytes at a time.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::ProstCodec;

/// Bytes that a stream's buffer begins with; tonic's own begins with 8 KiB in each direction.
const BEGINS_WITH: usize = 512;
/// When so many bytes are waiting they are sent, as with tonic's own.
const SENT_AT: usize = 32 << 10;

/// The codec of all internal contracts.
#[derive(Debug)]
pub struct Lean<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Lean<T, U> {
    fn default() -> Lean<T, U> {
        Lean(PhantomData)
    }
}

impl<T: Message + Send + 'static, U: Message + Default + Send + 'static> Codec for Lean<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = <ProstCodec<T, U> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(BEGINS_WITH, SENT_AT))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(BEGINS_WITH, SENT_AT))
    }
}
