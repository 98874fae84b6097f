//! A function on a host name of its own.

use wasmeter_testkit::{Answer, Host, manifest, raw};

fn is(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{}", answer.text());
}

#[tokio::test]
async fn a_function_has_its_host() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter"))
        .config("[server]\ndomain = \"fn.test\"\n")
        .start()
        .await;
    host.deploy("echo", &manifest("echo").public()).await;
    let at = |name: &str, path: &str| host.anonymous().get(path).header("host", name);
    let own = "echo--dev.fn.test:8080";
    let answer = at(own, "/a/b?x=1").send().await.expect(200);
    let json = answer.json();
    assert_eq!(
        (&json["path"], &json["query"], &json["authority"]),
        (&"/a/b".into(), &"x=1".into(), &own.into())
    );
    // Full pages: no policy is forced, and what holds for the origin holds for the function alone.
    assert_eq!(answer.header("content-security-policy"), None);
    let sets = [
        "service-worker-allowed:/",
        "strict-transport-security:max-age%3D1",
        "clear-site-data:%22*%22",
        "x-wasmeter-cost:9",
        "set-cookie:own%3D1",
        "set-cookie:wide%3D1;%20Domain%3Dfn.test",
    ];
    let query = sets.map(|s| format!("set={s}")).join("&");
    let answer = at(own, &format!("/?{query}")).send().await.expect(200);
    assert_eq!(answer.header("service-worker-allowed"), Some("/"));
    assert_eq!(answer.header("strict-transport-security"), Some("max-age=1"));
    assert_eq!((answer.header("clear-site-data"), answer.header("x-wasmeter-cost")), (None, None));
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["own=1"]);
    // Nothing of the platform is on that origin.
    for path in ["/healthz", "/readyz", "/api/openapi.json", "/fn/dev/other"] {
        assert_eq!(at(own, path).send().await.expect(200).json()["path"], path, "{path}");
    }
    // With the platform's own host all is as ever, and the path form keeps its walls.
    at("fn.test", "/healthz").send().await.expect(200);
    let path_form = at("fn.test", "/fn/dev/echo/hello").send().await.expect(200);
    assert_eq!(path_form.header("content-security-policy"), Some("sandbox allow-scripts allow-forms"));
    // Who may not know is told nothing.
    is(&at("nothing--dev.fn.test", "/").send().await, 401, "unauthenticated");
    is(&at("echo--other.fn.test", "/").send().await, 401, "unauthenticated");
    is(&host.dev().get("/").header("host", "nothing--dev.fn.test").send().await, 404, "not_found");
    for bad in [
        "dev.fn.test",
        "echo-dev.fn.test",
        "a.echo--dev.fn.test",
        "echo--dev--x.fn.test",
        "echo--dev.fn.test:x",
    ] {
        is(&at(bad, "/").send().await, 400, "malformed");
    }
    // A host that only looks like one below the domain.
    is(&at("echo--dev.fn.test.evil.com", "/x").send().await, 404, "not_found");
    is(&at("echo--dev.xfn.test", "/x").send().await, 404, "not_found");
    // The request line names the host, and Host must agree.
    let line = "GET http://echo--dev.fn.test/hello HTTP/1.1\r\nconnection: close";
    let same = raw(host.address(), format!("{line}\r\nhost: ECHO--dev.fn.test\r\n\r\n").as_bytes()).await;
    assert!(same.starts_with("HTTP/1.1 200 ") && same.ends_with("hello\n"), "{same}");
    let other = raw(host.address(), format!("{line}\r\nhost: fn.test\r\n\r\n").as_bytes()).await;
    assert!(other.starts_with("HTTP/1.1 400 "), "{other}");
}
