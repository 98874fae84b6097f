use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde_json::json;
use wasmeter_device::{Finding, Health, WorkerOptions};

use super::output::{Output, data, harmless, table};

#[derive(clap::Args)]
pub(crate) struct DoctorArgs {
    /// Data directory to look at, if it is there
    #[arg(
        long,
        env = "WASMETER_DATA",
        hide_env_values = true,
        value_name = "DIR",
        default_value = ".wasmeter"
    )]
    data_dir: PathBuf,
    /// Path of libonnxruntime.so [default: searched for]
    #[arg(long, value_name = "FILE")]
    onnxruntime: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Looks at this machine; starts nothing and changes nothing.
pub(crate) fn run(args: &DoctorArgs) -> Result<()> {
    let options = WorkerOptions { onnxruntime: args.onnxruntime.clone(), ..WorkerOptions::default() };
    let mut findings = wasmeter_device::doctor(&options);
    findings.push(pagemap_scan());
    findings.push(data_dir(&args.data_dir));
    findings.push(Finding {
        name: "separate users",
        health: Health::Weak,
        detail: "host, device workers and billing run as one user".to_owned(),
        advice: "the keys of money are safe from guests and models, not from a process that takes over the host itself",
    });
    if args.output.is_json() {
        let json: Vec<_> = findings
            .iter()
            .map(|f| json!({ "name": f.name, "health": word(f.health), "detail": f.detail, "advice": f.advice }))
            .collect();
        data(&format!("{}\n", serde_json::to_string_pretty(&json)?))?;
    } else {
        let row = |f: &Finding| {
            vec![f.name.to_owned(), word(f.health).to_owned(), harmless(&f.detail), f.advice.to_owned()]
        };
        let rows: Vec<_> = findings.iter().map(row).collect();
        data(&table(&["what", "health", "found", "advice"], &rows))?;
    }
    match findings.iter().filter(|f| f.health == Health::Missing).count() {
        0 => Ok(()),
        missing => bail!("{missing} of {} findings are missing", findings.len()),
    }
}

fn word(health: Health) -> &'static str {
    match health {
        Health::Good => "good",
        Health::Weak => "weak",
        Health::Missing => "missing",
    }
}

/// The quick way to reset the memory of a pooled instance (man page PAGEMAP_SCAN(2const): Linux 6.7).
fn pagemap_scan() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let good = version(&release).is_some_and(|version| version >= (6, 7))
        && Path::new("/proc/self/pagemap").exists();
    let (health, advice) = if good {
        (Health::Good, "")
    } else {
        (Health::Weak, "use Linux 6.7 or later: instances are reset by unmapping, which costs more")
    };
    Finding {
        name: "PAGEMAP_SCAN",
        health,
        detail: format!("judged by the kernel's version, {}", release.trim()),
        advice,
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Everything in the data directory is the user's alone.
fn data_dir(dir: &Path) -> Finding {
    let found = |health, detail, advice| Finding { name: "data directory", health, detail, advice };
    let Ok(root) = dir.symlink_metadata() else {
        return found(Health::Good, format!("{} is not there yet", dir.display()), "");
    };
    let me = rustix::process::geteuid().as_raw();
    if !root.is_dir() || root.uid() != me {
        return found(
            Health::Weak,
            format!("{} is no folder of this user", dir.display()),
            "run as the user that the server runs as, or name another --data-dir",
        );
    }
    if root.mode() & 0o077 != 0 {
        return found(
            Health::Missing,
            format!("{} has mode {:o}", dir.display(), root.mode() & 0o777),
            "chmod 700 it: others can read keys, tokens and the ledger's folder",
        );
    }
    found(Health::Good, format!("{} is this user's alone", dir.display()), "")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn kernels_and_folders_are_judged() {
        assert_eq!(version("6.12.3-amd64"), Some((6, 12)));
        assert_eq!(version("nonsense"), None);
        let dir = tempfile::tempdir().unwrap();
        let mode = |mode: u32| fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
        mode(0o700);
        assert_eq!(data_dir(dir.path()).health, Health::Good);
        mode(0o755);
        assert_eq!(data_dir(dir.path()).health, Health::Missing);
        assert_eq!(data_dir(&dir.path().join("none")).health, Health::Good);
    }
}
