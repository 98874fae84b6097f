//! Secrets: set by name, had by functions that list them, never shown.

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use wasmeter_testkit::{Host, component, manifest};

const PATH: &str = "/api/v1/tenants/dev/secrets";

fn builder() -> wasmeter_testkit::Builder {
    Host::builder(env!("CARGO_BIN_EXE_wasmeter"))
}

async fn ask(host: &Host, function: &str, name: &str) -> Value {
    host.anonymous().get(&format!("/fn/dev/{function}/secret?name={name}")).send().await.expect(200).json()
}

#[tokio::test]
async fn a_function_has_what_its_manifest_lists_and_nothing_else() {
    let mut host = builder().start().await;
    let listed = manifest("keeper").public().section("secrets", "allow = [\"api-key\"]");
    let refused = host.try_deploy("dev", component("keeper"), &listed).await;
    assert_eq!((refused.status, refused.code().as_str()), (422, "invalid"));
    assert!(refused.message().contains("wasmeter secrets set api-key"), "{}", refused.message());

    host.dev().put(&format!("{PATH}/api-key"), "hunter2-hunter2").send().await.expect(201);
    host.dev().put(&format!("{PATH}/other"), "unlisted").send().await.expect(201);
    host.deploy("keeper", &listed).await;
    assert_eq!(ask(&host, "keeper", "api-key").await, json!({ "secret": "hunter2-hunter2" }));
    for name in ["other", "nobody", "", "..%2Fapi-key", "API-KEY", "api-key%00"] {
        let error = ask(&host, "keeper", name).await["error"].as_str().unwrap_or_default().to_owned();
        assert!(error.starts_with("Denied"), "{name}: {error}");
    }
    // Another tenant's secret of the same name is another one.
    host.put_tenant("stranger").await;
    let theirs = "/api/v1/tenants/stranger/secrets/api-key";
    host.operator().put(theirs, "theirs").send().await.expect(201);
    assert_eq!(host.try_deploy("stranger", component("keeper"), &listed).await.status, 201);
    let answer = host.anonymous().get("/fn/stranger/keeper/secret?name=api-key").send().await.expect(200);
    assert_eq!(answer.json(), json!({ "secret": "theirs" }));

    // A new value holds from the next call on, also after a restart; a removed one is missing.
    host.dev().put(&format!("{PATH}/api-key"), "hunter3-hunter3").send().await.expect(200);
    assert_eq!(ask(&host, "keeper", "api-key").await, json!({ "secret": "hunter3-hunter3" }));
    host.restart().await;
    assert_eq!(ask(&host, "keeper", "api-key").await, json!({ "secret": "hunter3-hunter3" }));
    host.dev().delete(&format!("{PATH}/api-key")).send().await.expect(204);
    assert_eq!(ask(&host, "keeper", "api-key").await, json!({ "error": "Missing(\"api-key\")" }));

    ask(&host, "keeper", "other").await;

    // Nowhere in what is listed, logged or stored.
    let list = host.dev().get(PATH).send().await.expect(200);
    assert_eq!(list.json()["secrets"].as_array().map(Vec::len), Some(1));
    let log = host.dev().get("/api/v1/tenants/dev/functions/keeper/logs").send().await.expect(200);
    assert!(log.text().contains("add it to [secrets] allow") && log.text().contains("is not set"));
    for text in [list.text(), log.text()] {
        assert!(!text.contains("hunter") && !text.contains("unlisted"), "{text}");
    }
    let mut folders = vec![host.data().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").map(|e| e.expect("an entry").path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if let Ok(bytes) = std::fs::read(&entry) {
                assert!(!bytes.windows(7).any(|w| w == b"hunter2" || w == b"hunter3"), "{}", entry.display());
            }
        }
    }
}

#[tokio::test]
async fn the_command_line_takes_no_value() {
    let host = builder().start().await;
    let data = host.data().to_owned();
    let run = |args: &[&str], input: &str| -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wasmeter"));
        command
            .args(args)
            .arg("--data-dir")
            .arg(&data)
            .env_remove("WASMETER_URL")
            .env_remove("WASMETER_TOKEN");
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), input.as_bytes())
            .expect("written");
        child.wait_with_output().expect("it ends")
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let set = run(&["secrets", "set", "api-key"], "hunter2\n");
    assert!(set.status.success(), "{}", text(&set.stderr));
    let list = run(&["secrets", "list", "--format", "json"], "");
    assert!(text(&list.stdout).contains("api-key"), "{}", text(&list.stdout));
    for output in [&set, &list] {
        assert!(!text(&output.stdout).contains("hunter") && !text(&output.stderr).contains("hunter"));
    }
    host.deploy("keeper", &manifest("keeper").public().section("secrets", "allow = [\"api-key\"]")).await;
    assert_eq!(ask(&host, "keeper", "api-key").await, json!({ "secret": "hunter2" }));
    let refused = run(&["secrets", "set", "api-key", "hunter3"], "");
    assert!(!refused.status.success() && text(&refused.stderr).contains("seen by others"));
    assert!(run(&["secrets", "rm", "api-key"], "").status.success());
    assert!(!run(&["secrets", "rm", "api-key"], "").status.success());
}
