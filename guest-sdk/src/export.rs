//! Between `wasi:http/incoming-handler` and a handler.

use std::io::Write as _;

use crate::raw::wasi::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use crate::response::Body;
use crate::{BodyWriter, Error, IntoResponse, Request, Response};

/// Calls the handler and sends what it returns.
pub fn serve<T: IntoResponse>(handler: fn(Request) -> T, request: IncomingRequest, out: ResponseOutparam) {
    let answer = handler(Request::incoming(request)).into_response();
    send(answer, out);
}

fn send(answer: Response, out: ResponseOutparam) {
    let Response { status, headers, body } = answer;
    // RFC 9110, 6.4.1: these have no content and no length.
    let bare = (100..200).contains(&status) || status == 204 || status == 304;
    let head = match head(status, headers, (!bare).then_some(&body)) {
        Ok(head) => head,
        Err(error) => {
            let plain = Error::internal(error).into_response();
            eprintln!("answered 500: {}", String::from_utf8_lossy(plain.body().unwrap_or_default()));
            return send(plain, out);
        }
    };
    let Ok(content) = head.body() else {
        return ResponseOutparam::set(out, Ok(head));
    };
    let stream = content.write();
    ResponseOutparam::set(out, Ok(head));
    let Ok(stream) = stream else {
        return;
    };
    if !bare {
        let mut writer = BodyWriter::new(stream);
        let written = match body {
            Body::Whole(bytes) => writer.write_all(&bytes).map_err(Error::from),
            Body::Stream(write) => write(&mut writer).and_then(|()| Ok(writer.flush()?)),
        };
        if let Err(error) = written {
            // Without `finish` the host breaks the answer off, so that no caller takes a part for the whole.
            eprintln!("the answer broke off: {error}");
            return;
        }
    } else {
        drop(stream);
    }
    if let Err(error) = OutgoingBody::finish(content, None) {
        eprintln!("the answer could not be finished: {error:?}");
    }
}

/// Status and headers, with a `content-length` if the body is whole and nobody has set one.
fn head(
    status: u16,
    mut headers: Vec<(String, Vec<u8>)>,
    body: Option<&Body>,
) -> Result<OutgoingResponse, String> {
    if let Some(Body::Whole(bytes)) = body
        && !headers.iter().any(|(name, _)| name == "content-length")
    {
        headers.push(("content-length".to_owned(), bytes.len().to_string().into_bytes()));
    }
    // One call to the host for all; it does not say which of them it refuses.
    let fields =
        Fields::from_list(&headers).map_err(|error| match headers.iter().find(|h| !is_accepted(h)) {
            Some((name, _)) => format!("the handler set a header {name:?} that cannot be sent: {error:?}"),
            None => format!("the handler set headers that cannot be sent together: {error:?}"),
        })?;
    let response = OutgoingResponse::new(fields);
    if status != 200 {
        response
            .set_status_code(status)
            .map_err(|()| format!("the handler set a status {status} that does not exist"))?;
    }
    Ok(response)
}

fn is_accepted((name, value): &(String, Vec<u8>)) -> bool {
    Fields::new().append(name, value).is_ok()
}
