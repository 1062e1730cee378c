//! Framed connections for the gateway and the worker, which are asynchronous.
//!
//! The handshake is read frame by frame with [`receive_one`], which takes not one byte too many;
//! from then on [`reader`] and [`writer`] are a `Stream` and a `Sink` of messages.

use std::{
    io,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::Sleep,
};
use tokio_serde::{Deserializer, Serializer};
use tokio_util::{
    bytes::{Bytes, BytesMut},
    codec::{Decoder, FramedRead, FramedWrite, LengthDelimitedCodec},
};

use crate::{
    codec::{self, CodecError, Message},
    frame::{FrameReader, PREFIX},
    limits,
};

/// Messages arriving on `T`.
pub type Reader<T, M> = tokio_serde::Framed<Punctual<T>, M, M, Wire<M>>;
/// Messages leaving on `T`.
pub type Writer<T, M> = tokio_serde::Framed<FramedWrite<T, LengthDelimitedCodec>, M, M, Wire<M>>;

/// A stream of messages; it ends with an error if one frame takes longer than
/// [`limits::FRAME_DEADLINE`].
pub fn reader<T: AsyncRead + Unpin, M: Message>(io: T) -> Reader<T, M> {
    tokio_serde::Framed::new(
        Punctual::new(io, M::LIMIT, limits::FRAME_DEADLINE),
        Wire::default(),
    )
}

/// A sink of messages.
pub fn writer<T: AsyncWrite, M: Message>(io: T) -> Writer<T, M> {
    tokio_serde::Framed::new(
        FramedWrite::new(io, length_delimited(M::LIMIT)),
        Wire::default(),
    )
}

/// Reads exactly one message, within [`limits::FRAME_DEADLINE`].
///
/// # Errors
/// As the connection breaks, is too slow, or carries something else.
pub async fn receive_one<M: Message>(io: &mut (impl AsyncRead + Unpin)) -> io::Result<M> {
    let whole = async {
        let mut reader = FrameReader::new();
        let mut chunk = vec![0; 4096];
        loop {
            let wanted = reader.wanted().min(chunk.len());
            let read = io.read(&mut chunk[..wanted]).await?;
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            if let Some(body) = reader.push(&chunk[..read], M::LIMIT).map_err(invalid)? {
                return codec::decode(&body).map_err(invalid);
            }
        }
    };
    tokio::time::timeout(limits::FRAME_DEADLINE, whole).await?
}

/// Writes one message, within [`limits::FRAME_DEADLINE`].
///
/// # Errors
/// As the connection breaks or does not take it.
pub async fn send_one<M: Message>(
    io: &mut (impl AsyncWrite + Unpin),
    message: &M,
) -> io::Result<()> {
    let mut frame = Vec::new();
    codec::encode_frame(message, &mut frame).map_err(invalid)?;
    tokio::time::timeout(limits::FRAME_DEADLINE, io.write_all(&frame)).await?
}

fn invalid(error: CodecError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn length_delimited(limit: usize) -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .little_endian()
        .length_field_length(PREFIX)
        .max_frame_length(limit)
        .new_codec()
}

/// The wire format as tokio-serde takes it.
#[derive(Debug)]
pub struct Wire<M>(PhantomData<fn() -> M>);

impl<M> Default for Wire<M> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<M: Message> Serializer<M> for Wire<M> {
    type Error = io::Error;

    fn serialize(self: Pin<&mut Self>, message: &M) -> io::Result<Bytes> {
        let mut frame = Vec::new();
        codec::encode_frame(message, &mut frame).map_err(invalid)?;
        Ok(Bytes::from(frame).slice(PREFIX..))
    }
}

impl<M: Message> Deserializer<M> for Wire<M> {
    type Error = io::Error;

    fn deserialize(self: Pin<&mut Self>, body: &BytesMut) -> io::Result<M> {
        codec::decode(body).map_err(invalid)
    }
}

/// Frame bodies from `T`, each due within a time of its first byte. No timer runs between frames.
#[derive(Debug)]
pub struct Punctual<T> {
    frames: FramedRead<T, Begun>,
    patience: Duration,
    due: Option<Pin<Box<Sleep>>>,
}

impl<T: AsyncRead + Unpin> Punctual<T> {
    fn new(io: T, limit: usize, patience: Duration) -> Self {
        let decoder = Begun {
            frames: length_delimited(limit),
            begun: false,
        };
        Self {
            frames: FramedRead::new(io, decoder),
            patience,
            due: None,
        }
    }
}

impl<T: AsyncRead + Unpin> Stream for Punctual<T> {
    type Item = io::Result<BytesMut>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Poll::Ready(item) = Pin::new(&mut this.frames).poll_next(cx) {
            this.due = None;
            return Poll::Ready(item);
        }
        if !this.frames.decoder().begun {
            return Poll::Pending;
        }
        let patience = this.patience;
        let due = this
            .due
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        due.as_mut()
            .poll(cx)
            .map(|()| Some(Err(io::ErrorKind::TimedOut.into())))
    }
}

/// The length-delimited decoder, which also tells whether a frame has begun.
#[derive(Debug)]
struct Begun {
    frames: LengthDelimitedCodec,
    begun: bool,
}

impl Decoder for Begun {
    type Item = BytesMut;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<BytesMut>> {
        self.begun |= !bytes.is_empty();
        let frame = self.frames.decode(bytes)?;
        if frame.is_some() {
            self.begun = !bytes.is_empty();
        }
        Ok(frame)
    }
}
