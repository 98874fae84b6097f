use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use http::request::Parts;

/// The request as a command's environment.
///
/// Left out, because a program would believe them: `Proxy`, whose variable many programs take for the address of their
/// own proxy, and names with an underscore, which look like another header here.
pub(crate) fn variables(request: &Parts, function: &str) -> Vec<(String, String)> {
    let mut env = vec![
        ("GATEWAY_INTERFACE".to_owned(), "CGI/1.1".to_owned()),
        ("SERVER_SOFTWARE".to_owned(), "wasmeter".to_owned()),
        ("SERVER_PROTOCOL".to_owned(), format!("{:?}", request.version)),
        ("SCRIPT_NAME".to_owned(), String::new()),
        ("WASMETER_FUNCTION".to_owned(), function.to_owned()),
        ("REQUEST_METHOD".to_owned(), request.method.to_string()),
        ("PATH_INFO".to_owned(), request.uri.path().to_owned()),
        ("QUERY_STRING".to_owned(), request.uri.query().unwrap_or_default().to_owned()),
    ];
    for name in request.headers.keys() {
        let Some(key) = variable(name) else { continue };
        let values = request.headers.get_all(name).iter();
        let values: Vec<_> = values.map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
        env.push((key, values.join(", ")));
    }
    env
}

fn variable(name: &HeaderName) -> Option<String> {
    match name {
        &CONTENT_TYPE => Some("CONTENT_TYPE".to_owned()),
        &CONTENT_LENGTH => Some("CONTENT_LENGTH".to_owned()),
        // What is left of it here is the function's own affair, as with a component.
        &AUTHORIZATION => Some("HTTP_AUTHORIZATION".to_owned()),
        name if name == "proxy" => None,
        name => {
            let plain = name.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            plain.then(|| format!("HTTP_{}", name.as_str().to_ascii_uppercase().replace('-', "_")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_was_asked_and_nothing_that_misleads() {
        let request = http::Request::post("/a/b?x=1&y=%20")
            .header("content-type", "text/plain")
            .header("content-length", "5")
            .header("x-one", "a")
            .header("x-one", "b")
            .header("proxy", "http://evil/")
            .header("x_two", "smuggled")
            .header("accept", "*/*")
            .body(())
            .unwrap();
        let env = variables(&request.into_parts().0, "f");
        let get = |key: &str| env.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        assert_eq!(get("REQUEST_METHOD"), Some("POST"));
        assert_eq!(get("PATH_INFO"), Some("/a/b"));
        assert_eq!(get("QUERY_STRING"), Some("x=1&y=%20"));
        assert_eq!(get("CONTENT_TYPE"), Some("text/plain"));
        assert_eq!(get("CONTENT_LENGTH"), Some("5"));
        assert_eq!(get("HTTP_X_ONE"), Some("a, b"));
        assert_eq!(get("HTTP_ACCEPT"), Some("*/*"));
        assert_eq!(get("SERVER_PROTOCOL"), Some("HTTP/1.1"));
        assert_eq!((get("HTTP_PROXY"), get("HTTP_X_TWO"), get("HTTP_CONTENT_TYPE")), (None, None, None));
    }
}
