//! The smaller limits of a revision: each is refused at upload when it is above the plan, and said by name when a guest
//! meets it.

use wasmeter_testkit::{Answer, Host, component, manifest};

fn failed(answer: &Answer, part: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (502, "guest_failed"), "{part}: {}", answer.text());
    assert_eq!(answer.header("x-wasmeter-error-source"), Some("function"));
    assert!(answer.message().contains(part), "{part:?} is not in {:?}", answer.message());
}

#[tokio::test]
async fn above_the_plan_is_refused_at_upload() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    for (limit, part) in [
        ("instances = 65", "limits.instances is 65; it must be 1 to 64"),
        ("tables = 33", "limits.tables is 33"),
        ("table-elements = 2_000_000", "limits.table-elements is 2000000"),
        ("handles = 0", "limits.handles is 0"),
        ("host-call-bytes = \"2GiB\"", "limits.host-call-bytes"),
        ("headers = 101", "limits.headers is 101"),
        ("header-bytes = \"1MiB\"", "limits.header-bytes"),
    ] {
        let answer = host.try_deploy("dev", component("echo"), &manifest("echo").limits(limit)).await;
        assert_eq!((answer.status, answer.code().as_str()), (422, "invalid"), "{limit}: {}", answer.text());
        assert!(answer.message().contains(part), "{limit}: {}", answer.message());
    }
}

#[tokio::test]
async fn a_guest_that_meets_one_is_told_which() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    for (limit, path, part) in [
        ("instances = 1", "/", "limits.instances of 1"),
        ("tables = 1", "/", "limits.tables of 1"),
        ("table-elements = 3", "/", "limits.table-elements is 3"),
        ("handles = 100", "/leak-fields", "limits.handles of 100"),
        ("handles = 100", "/leak-pollables", "limits.handles of 100"),
        ("host-call-bytes = \"64KiB\"", "/big-argument?n=100000", "limits.host-call-bytes of 65536"),
        ("header-bytes = \"2KiB\"", "/header?n=4000", "limits.header-bytes of 2048"),
        ("headers = 4", "/headers?n=5", "answered with 5 header fields; its limits.headers is 4"),
    ] {
        // The same code and name with other limits is another revision.
        host.try_deploy("dev", component("hostile"), &manifest("hostile").limits(limit)).await;
        let answer = host.dev().get(&format!("/fn/dev/hostile{path}")).send().await;
        failed(&answer, part);
    }
    // What is within is taken.
    let enough = "instances = 16\ntables = 8\ntable-elements = 5000\nhandles = 100\nheaders = 5";
    host.try_deploy("dev", component("hostile"), &manifest("hostile").limits(enough)).await;
    host.dev().get("/fn/dev/hostile/headers?n=5").send().await.expect(200);
}

#[tokio::test]
async fn a_request_with_too_many_header_fields_is_told_the_limit() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    let limits = "headers = 10\nheader-bytes = \"1KiB\"";
    host.try_deploy("dev", component("echo"), &manifest("small").public().limits(limits)).await;
    host.try_deploy("dev", component("echo"), &manifest("echo").public()).await;
    let call = |path: &str, fields: usize, bytes: usize| {
        let mut call = host.anonymous().get(path);
        for n in 0..fields {
            call = call.header(&format!("x-field-{n}"), "v");
        }
        call.header("x-long", &"v".repeat(bytes)).send()
    };
    let told = |answer: Answer, part: &str| {
        assert_eq!((answer.status, answer.code().as_str()), (431, "headers_too_large"), "{}", answer.text());
        assert_eq!(answer.header("x-wasmeter-error-source"), Some("platform"));
        assert!(answer.message().contains(part), "{part:?} is not in {:?}", answer.message());
    };
    call("/fn/dev/small/hello", 1, 10).await.expect(200);
    told(call("/fn/dev/small/hello", 11, 10).await, "this function's, by its [limits], may have 10");
    told(call("/fn/dev/small/hello", 1, 1100).await, "this function's, by its [limits], may have 1024");
    call("/fn/dev/echo/hello", 90, 50_000).await.expect(200);
    // Of any request, before anything else is looked at.
    told(call("/fn/dev/echo/hello", 120, 10).await, "a request may have 100");
    told(call("/nowhere", 1, 70_000).await, "a request may have 65536");
}
