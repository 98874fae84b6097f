use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use wasmeter_usage::wire::{self, Call, Reply};

use crate::call::{Incoming, parse};
use crate::frame;
use crate::service::{Service, code, refused};

/// Whoever connects says hello within this time.
const HELLO_TIME: Duration = Duration::from_secs(10);

/// Frames beyond this are parsed off the runtime's threads.
const SMALL_FRAME: usize = 64 << 10;

/// Serves one connection to its end: hello, then one reply to each call, in order. On `stop` the call at hand is
/// answered first.
pub(crate) async fn serve(mut stream: UnixStream, service: Arc<Service>, stop: CancellationToken) {
    if let Err(error) = converse(&mut stream, &service, &stop).await {
        match error.kind() {
            // The other side left or died: its own log says why.
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                tracing::debug!(%error, "connection ended");
            }
            _ => tracing::warn!(%error, "connection closed"),
        }
    }
}

/// Tells a client that there is no room for it.
pub(crate) async fn turn_away(mut stream: UnixStream) {
    let reply = refused(code::BUSY, "billing has no free connection; close one or try again later");
    if let Ok(frame) = wire::encode(&reply) {
        // Nothing is owed to a client that does not even take this.
        let _ = frame::write(&mut stream, &frame).await;
    }
}

async fn converse(stream: &mut UnixStream, service: &Service, stop: &CancellationToken) -> io::Result<()> {
    let mut greeted = false;
    loop {
        let frame = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            frame = next(stream, greeted) => frame,
        };
        let frame = match frame {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                send(stream, &refused(code::MALFORMED, &error)).await?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let call = match read(frame).await {
            Ok(call) => call,
            Err(error) => {
                send(stream, &refused(code::MALFORMED, format!("frame is not a call: {error}"))).await?;
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        };
        let is_hello = matches!(call, Incoming::Other(Call::Hello { .. }));
        if !greeted && !is_hello {
            send(stream, &refused(code::PROTOCOL, "the first call of a connection is hello")).await?;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "call before hello"));
        }
        let reply = service.answer(call).await;
        send(stream, &reply).await?;
        if is_hello {
            greeted = matches!(reply, Reply::Hello { .. });
            if !greeted {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "hello was refused"));
            }
        }
    }
}

async fn next(stream: &mut UnixStream, greeted: bool) -> io::Result<Option<Vec<u8>>> {
    if greeted { frame::read(stream).await } else { timeout(HELLO_TIME, frame::read(stream)).await? }
}

async fn read(frame: Vec<u8>) -> io::Result<Incoming> {
    if frame.len() <= SMALL_FRAME {
        return Ok(parse(&frame)?);
    }
    Ok(tokio::task::spawn_blocking(move || parse(&frame)).await??)
}

async fn send(stream: &mut UnixStream, reply: &Reply) -> io::Result<()> {
    let frame = match wire::encode(reply) {
        Ok(frame) => frame,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => wire::encode(&refused(
            code::TOO_LARGE,
            format!("the answer is too long ({error}); ask for a shorter window"),
        ))?,
        Err(error) => return Err(error),
    };
    frame::write(stream, &frame).await
}
