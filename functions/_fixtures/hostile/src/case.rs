use wasmeter_guest::raw::wasi::http::types::{
    ErrorCode, Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasmeter_guest::raw::wasi::io::streams::OutputStream;

/// One request, and the one chance to answer it.
pub(crate) struct Case {
    pub(crate) request: IncomingRequest,
    pub(crate) out: ResponseOutparam,
    path: String,
    query: String,
}

impl Case {
    pub(crate) fn new(request: IncomingRequest, out: ResponseOutparam) -> Self {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let (path, query) = (path.to_owned(), query.to_owned());
        Self { request, out, path, query }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The first number in the query: `?n=17`.
    pub(crate) fn number(&self, default: usize) -> usize {
        self.query.split_once('=').and_then(|(_, n)| n.parse().ok()).unwrap_or(default)
    }

    /// 200 with this text.
    pub(crate) fn say(self, text: &str) {
        let response = OutgoingResponse::new(Fields::new());
        let body = start(self.out, response);
        body.write(text.as_bytes());
        body.finish(None);
    }
}

/// The body of an answer whose head has been given. The stream is the body's child: it goes first.
pub(crate) struct Body {
    stream: OutputStream,
    body: OutgoingBody,
}

impl Body {
    /// Writes all of it; false if the host takes no more.
    pub(crate) fn write(&self, bytes: &[u8]) -> bool {
        bytes.chunks(4096).all(|piece| self.stream.blocking_write_and_flush(piece).is_ok())
    }

    /// Ends it; the host may object.
    pub(crate) fn finish(self, trailers: Option<Fields>) -> Option<ErrorCode> {
        let Self { stream, body } = self;
        drop(stream);
        OutgoingBody::finish(body, trailers).err()
    }
}

/// Gives the head.
pub(crate) fn start(out: ResponseOutparam, response: OutgoingResponse) -> Body {
    let Ok(body) = response.body() else { fail("there is a body already") };
    let Ok(stream) = body.write() else { fail("the body is being written already") };
    ResponseOutparam::set(out, Ok(response));
    Body { stream, body }
}

/// What the host answered is not what the case is about.
pub(crate) fn fail(what: &str) -> ! {
    panic!("the hostile fixture is at its end: {what}")
}
