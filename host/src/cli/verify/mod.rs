mod replay;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::billing;
use super::connect::TenantConnect;
use super::output::{Output, data};

/// What is said by the exit status where nothing is wrong and not every call could be run again.
const NOT_ALL: u8 = 3;

#[derive(clap::Args)]
pub(crate) struct VerifyArgs {
    /// Receipts as `wasmeter receipts --format json` prints them, all or one; `-` reads standard input
    receipts: PathBuf,
    /// The operator's public key in hexadecimal, or a file of such keys or of `wasmeter receipts --keys --format json`.
    /// Without it the keys in the receipts are believed, which anybody can have made; the output says so
    #[arg(long, value_name = "FILE|HEX")]
    key: Vec<OsString>,
    /// Then run each recorded call again (`wasmeter record on`) and compare its fuel; asks the server for the recordings
    /// and the components. Exits 3 where nothing is wrong and not every call could be run again
    #[arg(long)]
    replay: bool,
    #[command(flatten)]
    connect: TenantConnect,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn run(args: &VerifyArgs) -> Result<ExitCode> {
    let format = if args.output.is_json() { "json" } else { "text" };
    let mut passed: Vec<OsString> = vec!["verify".into(), "--format".into(), format.into()];
    for key in &args.key {
        passed.extend(["--key".into(), key.clone()]);
    }
    passed.extend(["--".into(), args.receipts.clone().into_os_string()]);
    if !args.replay {
        return billing::run(&passed).map(|()| ExitCode::SUCCESS);
    }
    ensure!(args.receipts.as_os_str() != "-", "--replay reads the receipts twice: give a file, not -");
    let mut offline = billing::command(&passed)?;
    let done = offline.stderr(Stdio::inherit()).output().context("wasmeter-billing did not run")?;
    let code = done.status.code().and_then(|code| u8::try_from(code).ok());
    if !done.status.success() || !args.output.is_json() {
        super::output::data_bytes(&done.stdout)?;
    }
    if !done.status.success() {
        // A second run proves nothing of receipts that are wrong by themselves.
        return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
    }
    let found = replay::run(&args.receipts, &args.connect)?;
    if args.output.is_json() {
        let mut report: Value =
            serde_json::from_slice(&done.stdout).context("what wasmeter-billing printed")?;
        report["ok"] = found.differ.is_empty().into();
        report["replay"] = found.json();
        data(&format!("{}\n", serde_json::to_string_pretty(&report)?))?;
    } else {
        data(&found.text())?;
    }
    Ok(match (found.differ.is_empty(), found.untold.is_empty()) {
        (false, _) => ExitCode::FAILURE,
        (true, true) => ExitCode::SUCCESS,
        (true, false) => ExitCode::from(NOT_ALL),
    })
}
