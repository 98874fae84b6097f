use std::io::{self, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// How data is printed.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

#[derive(clap::Args)]
pub(crate) struct Output {
    /// Form of the data on stdout
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl Output {
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints the server's answer: as it is, or as text.
    pub(crate) fn show<T: DeserializeOwned>(
        &self,
        answer: Value,
        text: impl FnOnce(T) -> String,
    ) -> Result<()> {
        if self.is_json() {
            return data(&format!("{}\n", serde_json::to_string_pretty(&answer)?));
        }
        let answer = serde_json::from_value(answer).context(
            "the server's answer is not of a form that this command knows; are the versions equal?",
        )?;
        data(&text(answer))
    }
}

/// Prints data.
pub(crate) fn data(text: &str) -> Result<()> {
    data_bytes(text.as_bytes())
}

/// Prints data.
pub(crate) fn data_bytes(bytes: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()?;
    Ok(())
}

/// Says something to the person; a closed stderr is no reason to fail.
pub(crate) fn talk(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe;
    // Only our own stdout: a server that hangs up is another matter, and comes wrapped.
    error.downcast_ref::<io::Error>().is_some_and(broken)
}

/// ANSI styles, where a person reads and has not asked for none (no-color.org).
#[derive(Clone, Copy)]
pub(crate) struct Paint(bool);

impl Paint {
    pub(crate) fn stdout() -> Self {
        Self(io::stdout().is_terminal() && wanted())
    }

    pub(crate) fn stderr() -> Self {
        Self(io::stderr().is_terminal() && wanted())
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.style("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.style("2", text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.style("31", text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.style("32", text)
    }

    fn style(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        && std::env::var_os("TERM").is_none_or(|v| v != "dumb")
}

/// Text from elsewhere without what would steer a terminal.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// Aligned columns; those whose head ends in `>` are numbers, to the right.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let right: Vec<bool> = head.iter().map(|h| h.ends_with('>')).collect();
    let head: Vec<String> = head.iter().map(|h| h.trim_end_matches('>').to_owned()).collect();
    let mut widths: Vec<usize> = head.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let paint = Paint::stdout();
    let line = |row: &[String]| {
        let cells = row.iter().zip(&widths).zip(&right).map(|((cell, width), right)| {
            if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut text = paint.dim(&line(&head)) + "\n";
    for row in rows {
        text.push_str(&line(row));
        text.push('\n');
    }
    text
}

/// Names and values, one a line.
pub(crate) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let paint = Paint::stdout();
    let line =
        |(name, value): &(&str, String)| format!("{}  {value}\n", paint.dim(&format!("{name:<width$}")));
    facts.iter().map(line).collect()
}

/// `12,345,678`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.234 ms`: three decimals of the unit that keeps the number small.
pub(crate) fn time(ns: u64) -> String {
    let (scale, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (1_000, "us"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    format!("{}.{:03} {unit}", ns / scale, ns % scale * 1000 / scale)
}

/// `1.2 MB`, decimal units.
pub(crate) fn size(bytes: u64) -> String {
    let (scale, unit) = match bytes {
        0..1_000 => return format!("{bytes} B"),
        1_000..1_000_000 => (1_000, "kB"),
        1_000_000..1_000_000_000 => (1_000_000, "MB"),
        _ => (1_000_000_000, "GB"),
    };
    format!("{}.{} {unit}", bytes / scale, bytes % scale * 10 / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(
            [count(0), count(999), count(1000), count(12_345_678)],
            ["0", "999", "1,000", "12,345,678"]
        );
        assert_eq!([time(17), time(1_500), time(1_234_567)], ["17 ns", "1.500 us", "1.234 ms"]);
        assert_eq!(time(61_000_000_000), "61.000 s");
        assert_eq!([size(17), size(123_456), size(1_999_999)], ["17 B", "123.4 kB", "1.9 MB"]);
        assert_eq!(size(u64::MAX), "18446744073.7 GB");
    }

    #[test]
    fn columns_align() {
        let rows = [vec!["classify".into(), "7".into()], vec!["ä".into(), "1,000".into()]];
        let text = table(&["function", "calls>"], &rows);
        assert_eq!(text, "function  calls\nclassify      7\nä         1,000\n");
    }

    #[test]
    fn a_guest_does_not_steer_the_terminal() {
        assert_eq!(harmless("a\x1b[2Jb\tc\r"), "a\u{fffd}[2Jb\tc\u{fffd}");
    }
}
