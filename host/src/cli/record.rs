use anyhow::Result;
use serde::Deserialize;
use serde_json::json;

use super::connect::TenantConnect;
use super::output::{Output, count, facts};
use super::tenants::Switch;

#[derive(clap::Args)]
pub(crate) struct RecordArgs {
    /// Whether calls are recorded from now on; off removes what was recorded. Without it, show how it is
    switch: Option<Switch>,
    #[command(flatten)]
    connect: TenantConnect,
    #[command(flatten)]
    output: Output,
}

#[derive(Deserialize)]
struct Recording {
    on: bool,
    calls: u64,
    bytes: u64,
}

pub(crate) fn run(args: &RecordArgs) -> Result<()> {
    let (client, tenant) = args.connect.client()?;
    let path = format!("/api/v1/tenants/{tenant}/recording");
    let answer = match args.switch {
        None => client.get(&path)?,
        Some(switch) => client.put_json(&path, &json!({ "on": switch == Switch::On }))?,
    };
    args.output.show(answer, |recording: Recording| {
        facts(&[
            ("tenant", tenant.to_string()),
            ("recording", if recording.on { "on" } else { "off" }.to_owned()),
            ("recorded", format!("{} calls, {} bytes", count(recording.calls), count(recording.bytes))),
        ])
    })
}
