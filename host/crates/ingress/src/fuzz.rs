//! A head of a request, from bytes to the guest's view of it, under a million mutations (`deploy/bench/fuzz.sh`).

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use wasmeter_admission::idempotency_key;

use crate::authority::Domain;
use crate::route::{Place, Route, route};
use crate::walls;

const CORPUS: [&[u8]; 9] = [
    b"GET /fn/dev/classify@canary/a/b?x=1\nhost: 127.0.0.1:8080\nauthorization: Bearer a.b.c",
    b"GET /x?y\nhost: classify--dev.fn.test:443\ncookie: a=b\nset-cookie: a=b; Path=/fn/dev/classify; Secure",
    b"GET /ws/fn/dev/socket\nhost: fn.test\nupgrade: websocket\nconnection: upgrade\nsec-websocket-version: 13",
    b"POST http://fn.test/fn/dev/f\nhost: FN.test\nidempotency-key: 8e03978e-40d5\ncontent-length: 5",
    b"OPTIONS *\nhost: [::1]:80",
    b"CONNECT x:443\nhost: x:443",
    b"PUT /api/v1/tenants/dev/functions/f\nhost: x\nx-wasmeter-cost: 1\ncontent-security-policy: sandbox",
    b"HEAD /healthz\nhost: a--b.fn.test.\nset-cookie: a=b; Domain=fn.test\nset-cookie: c",
    b"GET /fn/dev/f/../../x?%00\nhost: u@x",
];

const WORDS: [&[u8]; 22] = [
    b"/fn/",
    b"/ws/fn/",
    b"--",
    b".fn.test",
    b"@",
    b"..",
    b"%2e",
    b"%00",
    b"\n",
    b": ",
    b"host: ",
    b"http://",
    b"https://x",
    b"[::1]",
    b":65536",
    b"Path=/fn/dev/f",
    b"; ",
    b"set-cookie: ",
    b"x-wasmeter-",
    b"\xff",
    b"*",
    b"?",
];

fn head(data: &[u8]) -> Option<(Method, Uri, HeaderMap)> {
    let mut lines = data.split(|b| *b == b'\n');
    let mut words = lines.next()?.split(|b| *b == b' ');
    let method = Method::from_bytes(words.next()?).ok()?;
    let uri = Uri::try_from(words.next()?).ok()?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|b| *b == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        headers.append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
    }
    Some((method, uri, headers))
}

/// What must hold of whatever is let through; whether it was.
fn check(data: &[u8]) -> bool {
    let mut through = false;
    let Some((method, uri, headers)) = head(data) else { return false };
    let domain: Domain = "fn.test".parse().unwrap();
    let _ = idempotency_key(&headers);
    for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
        let Ok(found) = route(Some(&domain), &method, version, &uri, &headers) else { continue };
        let (Route::Function(target) | Route::Socket(target)) = found else { continue };
        through = true;
        let host = target.authority.host();
        assert!(
            target.rest.as_str().starts_with('/')
                && !host.is_empty()
                && !target.authority.as_str().contains('@')
        );
        let below = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase().ends_with(".fn.test");
        assert_eq!(target.place == Place::Host, below, "{host}");
        let name =
            |n: &str| !n.is_empty() && n.len() <= 40 && !n.contains("--") && !n.contains(['/', '.', '%']);
        assert!(
            [target.tenant.as_str(), target.function.as_str(), target.alias.as_str()].into_iter().all(name)
        );
        let mut seen = headers.clone();
        walls::inbound(&mut seen, |v| v.as_bytes().starts_with(b"Bearer"));
        let ours = |h: &HeaderMap| h.keys().any(|n| n.as_str().starts_with("x-wasmeter-"));
        assert!(!ours(&seen));
        assert!(seen.get_all("authorization").iter().all(|v| !v.as_bytes().starts_with(b"Bearer")));
        let mut said = headers.clone();
        walls::outbound(&mut said, &target.place);
        assert!(!ours(&said) && !said.contains_key("clear-site-data"));
        for cookie in said.get_all("set-cookie") {
            let text = cookie.to_str().unwrap().to_ascii_lowercase();
            let attribute = |a: &str| a.split('=').next().unwrap_or_default().trim() == "domain";
            assert!(!text.split(';').skip(1).any(attribute), "{cookie:?}");
        }
        if let Place::Path(prefix) = &target.place {
            assert!(
                said.get_all("content-security-policy")
                    .iter()
                    .any(|v| v == "sandbox allow-scripts allow-forms")
            );
            assert!(said.get_all("set-cookie").iter().all(|c| c.to_str().unwrap().contains(prefix.as_str())));
        }
    }
    through
}

#[test]
fn a_router_takes_anything() {
    wasmeter_testkit::fuzz(&CORPUS, &WORDS, check);
}
