use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use wasmeter_types::FunctionName;

use super::output::{Paint, data, talk};

const CARGO: &str = include_str!("template/rust/Cargo.toml.in");
const LIB: &str = include_str!("template/rust/lib.rs.in");
const MANIFEST: &str = include_str!("template/rust/wasmeter.toml.in");
const SCRIPT_MANIFEST: &str = include_str!("template/wasmeter.toml.in");
const JS: &str = include_str!("template/js/function.js.in");
const PYTHON: &str = include_str!("template/python/function.py.in");

#[derive(clap::Args)]
pub(crate) struct NewArgs {
    /// Name of the function and of its folder
    name: FunctionName,
    /// Language
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    lang: Language,
    /// Folder of the guest SDK [default: guest-sdk of the wasmeter checkout around this folder or this program]
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Language {
    Rust,
    Js,
    Python,
}

impl Language {
    /// Where the handler is.
    fn source(self) -> &'static str {
        match self {
            Self::Rust => "src/lib.rs",
            Self::Js => "function.js",
            Self::Python => "function.py",
        }
    }

    /// The folder of its tools in the SDK; Rust's are cargo's.
    fn tools(self) -> Option<&'static str> {
        match self {
            Self::Rust => None,
            Self::Js => Some("js"),
            Self::Python => Some("python"),
        }
    }

    /// All files of a new function, unfilled.
    fn files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Rust => &[("Cargo.toml", CARGO), ("src/lib.rs", LIB), ("wasmeter.toml", MANIFEST)],
            Self::Js => &[("function.js", JS), ("wasmeter.toml", SCRIPT_MANIFEST)],
            Self::Python => &[("function.py", PYTHON), ("wasmeter.toml", SCRIPT_MANIFEST)],
        }
    }
}

/// Prints the folder.
pub(crate) fn run(args: &NewArgs) -> Result<()> {
    let here = std::env::current_dir().context("the current folder")?;
    let dir = here.join(args.name.as_str());
    let sdk = find_sdk(args.sdk.as_deref(), &here, &dir)?;
    write(&dir, &args.name, &sdk, args.lang)?;
    let (name, source) = (args.name.as_str(), args.lang.source());
    let paint = Paint::stderr();
    talk(&format!("made {name}/: the handler is in {name}/{source}. Next:"));
    talk(&paint.bold(&format!("  wasmeter deploy {name}\n  wasmeter invoke {name} --path '/?name=you'")));
    data(&format!("{}\n", dir.display()))
}

/// All files, or none where the folder is there already.
fn write(dir: &Path, name: &FunctionName, sdk: &Path, lang: Language) -> Result<()> {
    if let Err(error) = fs::create_dir(dir) {
        if error.kind() == io::ErrorKind::AlreadyExists {
            bail!("{} is there already: take another name or remove it", dir.display());
        }
        return Err(error).with_context(|| dir.display().to_string());
    }
    // TOML literals of their own kind: a path may hold quotes.
    let toml = |text: String| toml::Value::String(text).to_string();
    let sdk = sdk.to_str().context("the SDK's path is not UTF-8")?;
    let build = lang.tools().map(|tools| {
        let (tool, source) = (quoted(&format!("{sdk}/{tools}/build.sh")), lang.source());
        toml(format!("mkdir -p target && {tool} {source} target/{}.wasm", name.as_str()))
    });
    let fill = |text: &str| {
        text.replace("{{name}}", name.as_str())
            .replace("{{package}}", &package(name))
            .replace("{{sdk}}", &toml(sdk.to_owned()))
            .replace("{{build}}", build.as_deref().unwrap_or_default())
    };
    for (file, text) in lang.files().iter().chain(&[(".gitignore", "/target/\n")]) {
        let file = dir.join(file);
        file.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(file, fill(text))?;
    }
    Ok(())
}

/// One word of a shell command.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A name that cargo and rustc take: no keyword, no crate of the standard library, no digit first.
fn package(name: &FunctionName) -> String {
    const TAKEN: &[&str] = &[
        "alloc",
        "as",
        "async",
        "await",
        "box",
        "break",
        "const",
        "continue",
        "core",
        "crate",
        "do",
        "dyn",
        "else",
        "enum",
        "extern",
        "false",
        "final",
        "fn",
        "for",
        "gen",
        "if",
        "impl",
        "in",
        "let",
        "loop",
        "macro",
        "match",
        "mod",
        "move",
        "mut",
        "override",
        "priv",
        "pub",
        "ref",
        "return",
        "self",
        "static",
        "std",
        "struct",
        "super",
        "test",
        "trait",
        "true",
        "try",
        "type",
        "typeof",
        "unsafe",
        "unsized",
        "use",
        "virtual",
        "wasmeter-guest",
        "where",
        "while",
        "yield",
        "abstract",
        "become",
        "proc-macro",
    ];
    let name = name.as_str();
    if TAKEN.contains(&name) || name.starts_with(|c: char| c.is_ascii_digit()) {
        format!("function-{name}")
    } else {
        name.to_owned()
    }
}

/// The SDK, as a path that the new `Cargo.toml` can use.
fn find_sdk(given: Option<&Path>, here: &Path, dir: &Path) -> Result<PathBuf> {
    if let Some(given) = given {
        if !is_sdk(given) {
            bail!("no wasmeter-guest in {}: --sdk names the folder guest-sdk of wasmeter", given.display());
        }
        return Ok(given.canonicalize()?);
    }
    if let Some(root) = here.ancestors().find(|d| is_sdk(&d.join("guest-sdk"))) {
        // Relative, so that the checkout can move.
        let up = dir.strip_prefix(root).map_or(0, |p| p.components().count());
        return Ok(std::iter::repeat_n("..", up).collect::<PathBuf>().join("guest-sdk"));
    }
    let program = std::env::current_exe().ok();
    let beside = program.iter().flat_map(|p| p.ancestors()).map(|d| d.join("guest-sdk")).find(|d| is_sdk(d));
    beside.context("no guest SDK here: run this inside the wasmeter checkout, or name its folder with --sdk")
}

fn is_sdk(dir: &Path) -> bool {
    fs::read_to_string(dir.join("Cargo.toml")).is_ok_and(|text| text.contains("name = \"wasmeter-guest\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_function_is_complete_and_finds_the_sdk() {
        let root = tempfile::tempdir().unwrap();
        let sdk = root.path().join("guest-sdk");
        fs::create_dir_all(&sdk).unwrap();
        fs::write(sdk.join("Cargo.toml"), "name = \"wasmeter-guest\"").unwrap();
        let here = root.path().join("a");
        fs::create_dir(&here).unwrap();
        let dir = here.join("hello");
        let found = find_sdk(None, &here, &dir).unwrap();
        assert_eq!(found, Path::new("../../guest-sdk"));
        let name: FunctionName = "hello".parse().unwrap();
        write(&dir, &name, &found, Language::Rust).unwrap();
        let cargo = fs::read_to_string(dir.join("Cargo.toml")).unwrap();
        assert!(cargo.contains("\"../../guest-sdk\""), "{cargo}");
        cargo.parse::<toml::Table>().unwrap();
        let manifest = fs::read_to_string(dir.join("wasmeter.toml")).unwrap();
        let manifest = wasmeter_types::FunctionManifest::from_toml(&manifest).unwrap();
        assert_eq!(manifest.function.name, name);
        assert!(
            write(&dir, &name, &found, Language::Rust).unwrap_err().to_string().contains("there already")
        );
    }

    #[test]
    fn a_script_is_built_by_the_sdk_s_tool() {
        let root = tempfile::tempdir().unwrap();
        let name: FunctionName = "hello".parse().unwrap();
        for (lang, tool) in [(Language::Js, "js"), (Language::Python, "python")] {
            let dir = root.path().join(tool);
            write(&dir, &name, Path::new("/it's here/guest-sdk"), lang).unwrap();
            let manifest = fs::read_to_string(dir.join("wasmeter.toml")).unwrap();
            let manifest = wasmeter_types::FunctionManifest::from_toml(&manifest).unwrap();
            let source = lang.source();
            assert_eq!(
                manifest.build.unwrap().command.unwrap(),
                format!(
                    r"mkdir -p target && '/it'\''s here/guest-sdk/{tool}/build.sh' {source} target/hello.wasm"
                )
            );
            assert_eq!(manifest.function.component.as_deref(), Some("target/hello.wasm"));
            assert!(fs::read_to_string(dir.join(source)).unwrap().contains("The function `hello`"));
        }
    }

    #[test]
    fn package_names() {
        let package = |s: &str| package(&s.parse().unwrap());
        assert_eq!(
            [package("hello-you"), package("fn"), package("2nd"), package("test")],
            ["hello-you", "function-fn", "function-2nd", "function-test"]
        );
    }
}
