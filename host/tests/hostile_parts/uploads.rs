//! Uploads that are bombs.

/// An unsigned number in LEB128.
fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id], leb(content.len()).as_slice(), content].concat()
}

/// A command of so many functions with this body (locals, code, end); the first one is `_start`.
pub fn functions(count: usize, body: &[u8]) -> Vec<u8> {
    let entry = [leb(body.len()).as_slice(), body].concat();
    let sections = [
        // One type, without parameters and results.
        section(1, &[1, 0x60, 0, 0]),
        section(3, &[leb(count), vec![0; count]].concat()),
        section(5, &[1, 0, 1]),
        section(7, &[&[2, 6], b"_start".as_slice(), &[0, 0, 6], b"memory".as_slice(), &[2, 0]].concat()),
        section(10, &[leb(count), entry.repeat(count)].concat()),
    ];
    [b"\0asm\x01\0\0\0".to_vec(), sections.concat()].concat()
}

/// The same with one more section that means nothing, of so many bytes.
pub fn padded(mut wasm: Vec<u8>, bytes: usize) -> Vec<u8> {
    let name = b"\x07padding";
    wasm.extend(section(0, &[name.as_slice(), &vec![b'x'; bytes]].concat()));
    wasm
}

/// A body of so many nested blocks.
pub fn nested(depth: usize) -> Vec<u8> {
    [vec![0], [2, 0x40].repeat(depth), vec![0x0b; depth], vec![0x0b]].concat()
}

/// A body of so many locals of type i64.
pub fn locals(count: usize) -> Vec<u8> {
    [vec![1], leb(count), vec![0x7e, 0x0b]].concat()
}
