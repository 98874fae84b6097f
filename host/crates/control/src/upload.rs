use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::Request;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, header};
use tokio::time::{Instant, timeout_at};
use wasmeter_types::{ByteSize, Error, ErrorKind};

use crate::error::{Answer, Failure, refuse};

/// The longest silence of an uploading client.
const IDLE: Duration = Duration::from_secs(30);
/// The longest upload.
const LONGEST: Duration = Duration::from_secs(900);
/// The text parts of an upload: a manifest, a card.
pub(crate) const MAX_TEXT: u64 = 64 << 10;
/// What the frame of a multipart body may add to its parts.
const FRAME: u64 = 64 << 10;

/// An uploaded body: refused by its `Content-Length`, and counted while it is read.
pub(crate) struct Upload {
    body: BodyDataStream,
    headers: HeaderMap,
    most: u64,
    left: u64,
    end: Instant,
}

impl Upload {
    /// Refuses what announces more than `most` bytes.
    pub(crate) fn new(request: Request, most: u64) -> Answer<Self> {
        let (parts, body) = request.into_parts();
        let multipart = is_multipart(&parts.headers);
        let left = if multipart { most + MAX_TEXT + FRAME } else { most };
        if announced(&parts.headers).is_some_and(|n| n > left) {
            return Err(Failure(too_large(most)));
        }
        let end = Instant::now() + LONGEST;
        Ok(Self { body: Body::into_data_stream(body), headers: parts.headers, most, left, end })
    }

    /// The bytes that it may have.
    pub(crate) fn size(&self) -> u64 {
        announced(&self.headers).unwrap_or(self.left)
    }

    /// Whether the body is `multipart/form-data`.
    pub(crate) fn is_multipart(&self) -> bool {
        is_multipart(&self.headers)
    }

    /// The media type without parameters, in small letters.
    pub(crate) fn media_type(&self) -> Option<String> {
        let text = self.headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        Some(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
    }

    /// The whole body.
    pub(crate) async fn whole(mut self) -> Answer<Bytes> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.into())
    }

    /// The parts of a multipart body (RFC 7578).
    pub(crate) fn parts(self) -> Answer<Parts> {
        let boundary = self
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| multer::parse_boundary(v).ok());
        let Some(boundary) = boundary else {
            return Err(refuse(ErrorKind::Malformed, "multipart/form-data without a boundary"));
        };
        let most = self.most;
        Ok(Parts { multipart: multer::Multipart::new(self.stream(), boundary), most })
    }

    fn stream(self) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
        stream::try_unfold(self, |mut upload| async move {
            Ok(upload.chunk().await?.map(|chunk| (chunk, upload)))
        })
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let end = self.end.min(Instant::now() + IDLE);
        let chunk = match timeout_at(end, self.body.next()).await {
            Err(_) => {
                let message = format!(
                    "the upload was too slow: {}s without a byte or {}s in all",
                    IDLE.as_secs(),
                    LONGEST.as_secs()
                );
                return Err(Error::new(ErrorKind::SlowRequest, message));
            }
            Ok(None) => return Ok(None),
            Ok(Some(Err(_))) => return Err(Error::new(ErrorKind::Malformed, "the upload broke off")),
            Ok(Some(Ok(chunk))) => chunk,
        };
        self.left = self.left.checked_sub(chunk.len() as u64).ok_or_else(|| too_large(self.most))?;
        Ok(Some(chunk))
    }
}

/// The parts of a multipart upload, in order.
pub(crate) struct Parts {
    multipart: multer::Multipart<'static>,
    most: u64,
}

/// One part.
pub(crate) struct Part {
    field: multer::Field<'static>,
    most: u64,
}

impl Parts {
    /// The next part, before its content.
    pub(crate) async fn next(&mut self) -> Answer<Option<Part>> {
        let field = self.multipart.next_field().await.map_err(broken)?;
        Ok(field.map(|field| Part { field, most: self.most }))
    }
}

impl Part {
    /// The part's name.
    pub(crate) fn name(&self) -> String {
        self.field.name().unwrap_or_default().chars().take(100).collect()
    }

    /// Its content.
    pub(crate) async fn bytes(mut self, most: u64) -> Answer<Bytes> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.field.chunk().await.map_err(broken)? {
            if (bytes.len() + chunk.len()) as u64 > most {
                return Err(Failure(too_large(most.min(self.most))));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.into())
    }

    /// Its content as text.
    pub(crate) async fn text(self) -> Answer<String> {
        let name = self.name();
        let bytes = self.bytes(MAX_TEXT).await?;
        String::from_utf8(bytes.into())
            .map_err(|_| refuse(ErrorKind::Malformed, format!("part {name:?} is not UTF-8")))
    }
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn is_multipart(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.trim_start().to_ascii_lowercase().starts_with("multipart/form-data")
}

fn too_large(most: u64) -> Error {
    Error::new(ErrorKind::TooLarge, format!("at most {} are taken", ByteSize(most)))
}

/// The refusal of our own stream inside the parser's error, or the parser's.
fn broken(error: multer::Error) -> Failure {
    match error {
        multer::Error::StreamReadFailed(inner) => match inner.downcast::<Error>() {
            Ok(error) => Failure(*error),
            Err(_) => refuse(ErrorKind::Malformed, "the upload broke off"),
        },
        error => refuse(ErrorKind::Malformed, format!("multipart: {error}")),
    }
}
