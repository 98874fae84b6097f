use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use tokio::time::{Instant, timeout_at};
use wasmeter_runtime::BodyError;
use wasmeter_types::{Error, ErrorKind};

/// The largest body of a call that is recorded whole.
const MOST: u64 = 256 << 10;

/// The body of a call that is recorded: read whole before the guest begins, so that how it came in pieces makes no
/// difference. One of unknown length, or a large one, goes to the guest as it comes, and is not kept.
///
/// # Errors
/// If it does not arrive by the deadline, falls silent or breaks off.
pub(crate) async fn taped(
    mut body: UnsyncBoxBody<Bytes, BodyError>,
    deadline: Instant,
) -> Result<(UnsyncBoxBody<Bytes, BodyError>, Option<Bytes>), Error> {
    if body.size_hint().exact().is_none_or(|length| length > MOST) {
        return Ok((body, None));
    }
    let mut bytes = BytesMut::new();
    loop {
        let slow = || Error::new(ErrorKind::SlowRequest, "the body did not arrive in time");
        match timeout_at(deadline, body.frame()).await {
            Err(_) | Ok(Some(Err(BodyError::Slow))) => return Err(slow()),
            Ok(Some(Err(_))) => return Err(Error::new(ErrorKind::Malformed, "the body broke off")),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    bytes.extend_from_slice(&data);
                }
            }
            Ok(None) => break,
        }
    }
    let bytes = bytes.freeze();
    let body = Full::new(bytes.clone()).map_err(|never| match never {}).boxed_unsync();
    Ok((body, Some(bytes)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    #[tokio::test]
    async fn a_body_of_known_length_is_read_whole_and_others_pass() {
        let end = Instant::now() + Duration::from_secs(1);
        let full =
            |bytes: Vec<u8>| Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed_unsync();
        let (body, whole) = taped(full(b"abc".to_vec()), end).await.unwrap();
        assert_eq!(
            (&whole.unwrap()[..], &body.collect().await.unwrap().to_bytes()[..]),
            (&b"abc"[..], &b"abc"[..])
        );
        let (_, whole) = taped(full(vec![0; MOST as usize + 1]), end).await.unwrap();
        assert!(whole.is_none());
        let pieces = futures_util::stream::iter([Ok::<_, BodyError>(Frame::data(Bytes::from_static(b"a")))]);
        let (_, whole) = taped(StreamBody::new(pieces).boxed_unsync(), end).await.unwrap();
        assert!(whole.is_none());
    }
}
