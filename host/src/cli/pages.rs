//! Pages of Stripe's: checkout and portal.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::json;

use super::connect::TenantConnect;
use super::output::{Output, talk};

#[derive(clap::Args)]
pub(crate) struct PageArgs {
    /// Show the page in the browser too
    #[arg(long)]
    open: bool,
    #[command(flatten)]
    connect: TenantConnect,
    #[command(flatten)]
    output: Output,
}

#[derive(Deserialize)]
struct Page {
    url: String,
}

pub(crate) fn portal(args: &PageArgs) -> Result<()> {
    page(args, "portal")
}

pub(crate) fn checkout(args: &PageArgs) -> Result<()> {
    page(args, "checkout")
}

fn page(args: &PageArgs, which: &str) -> Result<()> {
    let (client, tenant) = args.connect.client()?;
    let answer = client.post(&format!("/api/v1/tenants/{tenant}/billing/{which}"), &json!({}))?;
    let Page { url } = Page::deserialize(&answer).context("the server's answer has no url")?;
    args.output.show(answer, |page: Page| format!("{}\n", page.url))?;
    if args.open {
        browse(&url);
    } else {
        talk("the page is for this tenant alone: whoever has the address is in");
    }
    Ok(())
}

/// Never more than a convenience: the address is printed already.
fn browse(url: &str) {
    // What a shell or the browser's launcher would read as an option or a file is not opened.
    if !(url.starts_with("https://") || url.starts_with("http://")) {
        return talk("this is no address that a browser would be given");
    }
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = Command::new(program);
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => {}
        _ => talk(&format!("{program} could not show it: open the address above in a browser")),
    }
}
