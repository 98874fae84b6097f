use std::ops::Range;

use wasmparser::{ComponentTypeRef, ExternalKind, Parser, Payload};

/// Functions of all modules of an upload together. The largest interpreters have fewer than a third of it.
const FUNCTIONS: u64 = 200_000;
/// Core modules of a component.
const MODULES: u64 = 64;
/// Components within a component.
const COMPONENTS: u64 = 256;
/// Locals of one function; the time of its compilation grows faster than their number.
const LOCALS: u64 = 20_000;
/// Bytes of one function.
const BODY: u64 = 4 << 20;
/// Imports, and exports, of the upload itself.
const NAMES: u64 = 1_000;
/// Bytes of one name of an import or export.
const NAME: u64 = 512;

/// What an upload says of itself. It is read, not validated: for that, and for compiling, there is a child process.
#[derive(Debug, Default)]
pub(crate) struct Outline {
    /// Of a component, the instances that it imports; of a module nothing.
    pub(crate) instances: Vec<String>,
    /// Names that it exports; of a module those of functions and memories.
    pub(crate) exports: Vec<String>,
}

/// Reads a component or module of any size in a few milliseconds. What is beyond a limit would only cost the compiler
/// time; the limits are far above what languages' tools make.
///
/// # Errors
/// What is wrong, for the author.
pub(crate) fn outline(wasm: &[u8]) -> Result<Outline, String> {
    let mut outline = Outline::default();
    let mut counts = Counts::default();
    // Modules and components that we are inside of.
    let mut depth = 0u32;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(invalid)? {
            Payload::ModuleSection { .. } => {
                depth += 1;
                counts.modules = bounded(counts.modules + 1, MODULES, "core modules")?;
            }
            Payload::ComponentSection { .. } => {
                depth += 1;
                counts.components = bounded(counts.components + 1, COMPONENTS, "components within it")?;
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::FunctionSection(section) => {
                counts.functions =
                    bounded(counts.functions + u64::from(section.count()), FUNCTIONS, "functions")?;
            }
            Payload::CodeSectionEntry(body) => {
                bounded(length(&body.range()), BODY, "bytes in one function")?;
                let mut locals = 0;
                for group in body.get_locals_reader().map_err(invalid)? {
                    let (count, _) = group.map_err(invalid)?;
                    locals = bounded(locals + u64::from(count), LOCALS, "locals in one function")?;
                }
            }
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let import = import.map_err(invalid)?;
                    counts.imports = bounded(counts.imports + 1, NAMES, "imports")?;
                    if let ComponentTypeRef::Instance(_) = import.ty {
                        outline.instances.push(name(import.name.name)?);
                    }
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    outline.export(export.map_err(invalid)?.name.name)?;
                }
            }
            Payload::ExportSection(section) if depth == 0 => {
                for export in section {
                    let export = export.map_err(invalid)?;
                    if matches!(export.kind, ExternalKind::Func | ExternalKind::Memory) {
                        outline.export(export.name)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(outline)
}

#[derive(Default)]
struct Counts {
    functions: u64,
    modules: u64,
    components: u64,
    imports: u64,
}

impl Outline {
    fn export(&mut self, text: &str) -> Result<(), String> {
        bounded(self.exports.len() as u64 + 1, NAMES, "exports")?;
        self.exports.push(name(text)?);
        Ok(())
    }
}

fn name(text: &str) -> Result<String, String> {
    bounded(text.len() as u64, NAME, "bytes in the name of an import or export")?;
    Ok(text.to_owned())
}

fn length(range: &Range<usize>) -> u64 {
    range.len() as u64
}

fn bounded(count: u64, most: u64, what: &str) -> Result<u64, String> {
    if count > most {
        return Err(format!("the component has {count} {what} or more; at most {most} are taken"));
    }
    Ok(count)
}

fn invalid(error: wasmparser::Error) -> String {
    format!("the component is not valid: {error}")
}

/// A component without code that imports instances of these names, of which it asks nothing: it links where each of them
/// is provided, in a version that is compatible.
///
/// Encoded by hand, as in the component model's `Binary.md`: a type section with the empty instance type, and imports of
/// that type.
pub(crate) fn importer(instances: &[String]) -> Vec<u8> {
    let mut section = leb(instances.len());
    for name in instances {
        section.push(0);
        section.extend(leb(name.len()));
        section.extend_from_slice(name.as_bytes());
        section.extend([0x05, 0]);
    }
    let mut wasm = b"\0asm\x0d\0\x01\0".to_vec();
    wasm.extend([7, 3, 1, 0x42, 0]);
    wasm.push(10);
    wasm.extend(leb(section.len()));
    wasm.extend(section);
    wasm
}

/// LEB128 without a sign.
fn leb(mut n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (n & 0x7f) as u8;
        n >>= 7;
        if n == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module with these sections: id and content.
    fn module(sections: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut wasm = b"\0asm\x01\0\0\0".to_vec();
        for (id, content) in sections {
            wasm.push(*id);
            wasm.extend(leb(content.len()));
            wasm.extend_from_slice(content);
        }
        wasm
    }

    /// A module with so many functions, of so many locals each.
    fn functions(count: usize, locals: usize) -> Vec<u8> {
        let types = vec![1, 0x60, 0, 0];
        let indices = [leb(count), vec![0; count]].concat();
        let body = [vec![1], leb(locals), vec![0x7f, 0x0b]].concat();
        let body = [leb(body.len()), body].concat();
        let code = [leb(count), body.repeat(count)].concat();
        module(&[(1, types), (3, indices), (10, code)])
    }

    #[test]
    fn counts_meet_their_limits_with_the_number() {
        assert!(outline(&functions(1000, 20_000)).is_ok());
        let error = outline(&functions(200_001, 0)).unwrap_err();
        assert!(error.contains("200001 functions") && error.contains("at most 200000"), "{error}");
        let error = outline(&functions(1, 20_001)).unwrap_err();
        assert!(error.contains("20001 locals in one function") && error.contains("20000"), "{error}");
        let inner = [vec![8], b"\0asm\x01\0\0\0".to_vec()].concat();
        let modules =
            |n| [b"\0asm\x0d\0\x01\0".to_vec(), [vec![1], inner.clone()].concat().repeat(n)].concat();
        assert!(outline(&modules(64)).is_ok());
        assert!(outline(&modules(65)).unwrap_err().contains("65 core modules"));
        let body = [leb(5 << 20), vec![0; 5 << 20]].concat();
        let long = module(&[(1, vec![1, 0x60, 0, 0]), (3, vec![1, 0]), (10, [vec![1], body].concat())]);
        assert!(outline(&long).unwrap_err().contains("bytes in one function"));
        assert!(outline(b"\0asm\x01\0\0\0\x0a\xff").unwrap_err().contains("not valid"));
    }

    #[test]
    fn names_are_those_of_the_upload_itself() {
        let names = ["wasi:io/poll@0.2.0".to_owned(), "a:b/c".to_owned()];
        let outer = outline(&importer(&names)).unwrap();
        assert_eq!(outer.instances, names);
        assert!(outline(&importer(&["x".repeat(513)])).unwrap_err().contains("513 bytes in the name"));
        let many: Vec<String> = (0..1001).map(|n| format!("a:b/c{n}")).collect();
        assert!(outline(&importer(&many)).unwrap_err().contains("1001 imports"));
        let export =
            module(&[(5, vec![1, 0, 1]), (7, [vec![1, 6], b"memory".to_vec(), vec![2, 0]].concat())]);
        assert_eq!(outline(&export).unwrap().exports, ["memory"]);
    }
}
