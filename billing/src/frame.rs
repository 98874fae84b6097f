use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use wasmeter_usage::wire;

/// A frame that has begun ends within this time.
const FRAME_TIME: Duration = Duration::from_secs(30);

/// The body of the next frame; `None` at a clean end. Memory grows with what arrives, not with what is claimed.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut prefix = [0; 4];
    let first = stream.read(&mut prefix).await?;
    if first == 0 {
        return Ok(None);
    }
    timeout(FRAME_TIME, async {
        stream.read_exact(&mut prefix[first..]).await?;
        let length = wire::body_length(prefix)?;
        let mut body = Vec::new();
        stream.take(length as u64).read_to_end(&mut body).await?;
        if body.len() < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(Some(body)) }
    })
    .await?
}

/// Writes a frame that is encoded already.
pub(crate) async fn write(stream: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    timeout(FRAME_TIME, stream.write_all(frame)).await?
}
