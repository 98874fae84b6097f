use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Args;
use wasmeter_ledger::{Ledger, Reader, Stamp};
use wasmeter_stripe::divisor;

use crate::data_dir::{DataDir, ledger_path};
use crate::now::now_ns;

#[derive(Args)]
pub(crate) struct BackupOptions {
    /// Data directory of the ledger; a running `serve` is not disturbed
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// File to write; it must not exist
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

#[derive(Args)]
pub(crate) struct RestoreOptions {
    /// Data directory without a ledger
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The backup
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
}

/// Writes a copy of the ledger as of one commit.
pub(crate) fn backup(options: &BackupOptions) -> anyhow::Result<ExitCode> {
    let path = ledger_path(&options.data);
    let reader = Reader::open(&path).with_context(|| format!("cannot open ledger {}", path.display()))?;
    let to = options.to.display();
    ensure!(!options.to.exists(), "{to} exists; name another file");
    // Made by us and not by SQLite: nobody else may read it, from its first byte on.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    reader.back_up(&options.to).with_context(|| format!("cannot write {to}"))?;
    let copy = Reader::open(&options.to).with_context(|| format!("the copy {to} is not sound"))?;
    println!("{to}: {} entries", copy.entries()?);
    Ok(ExitCode::SUCCESS)
}

/// Puts a backup in the place of a ledger that was lost.
pub(crate) fn restore(options: &RestoreOptions) -> anyhow::Result<ExitCode> {
    let from = options.from.display();
    let backup = Reader::open(&options.from).with_context(|| format!("cannot open backup {from}"))?;
    let report = backup.check(|_, _| ())?;
    ensure!(report.faults == 0, "backup {from} is damaged: {:?}", report.first_faults);
    let currency = backup.currency().to_owned();
    let data = DataDir::open(&options.data)?;
    let path = data.ledger();
    ensure!(
        !path.exists(),
        "{} exists; move it away first, with its -wal and -shm, and keep it",
        path.display()
    );
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    // Whole and on disk before it has the name.
    let draft = path.with_extension("restoring");
    if draft.exists() {
        std::fs::remove_file(&draft).with_context(|| format!("cannot remove {}", draft.display()))?;
    }
    backup.back_up(&draft).with_context(|| format!("cannot write {}", draft.display()))?;
    let parked = Ledger::open(&draft, None::<Stamp>, &currency, now_ns())?.revive(divisor, now_ns())?;
    std::fs::File::open(&draft)?.sync_all()?;
    std::fs::rename(&draft, &path).with_context(|| format!("cannot rename to {}", path.display()))?;
    std::fs::File::open(&options.data)?.sync_all()?;
    println!("{}: {} entries, {parked} buckets parked", path.display(), report.entries);
    eprintln!(
        "what was booked after the backup is not in it: let nodes begin new spool epochs, and run reconcile"
    );
    Ok(ExitCode::SUCCESS)
}
