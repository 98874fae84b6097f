//! Guests that want more memory than there is.

use std::hint::black_box;

use crate::case::Case;

/// Bytes of a WebAssembly page.
const PAGE: usize = 65_536;

/// Takes pages until it is refused, then says how many it has.
pub(crate) fn grow(case: Case) {
    // The answer needs a little heap of its own when there is no more to have.
    let reserve = black_box(vec![1u8; 4 * PAGE]);
    while more(16).is_some() {}
    while more(1).is_some() {}
    drop(reserve);
    case.say(&format!("{} pages\n", pages()));
}

/// The same, and writes to each.
pub(crate) fn grow_and_touch(case: Case) {
    let reserve = black_box(vec![1u8; 4 * PAGE]);
    while let Some(first) = more(16) {
        (first..first + 16).for_each(write_to);
    }
    while let Some(last) = more(1) {
        write_to(last);
    }
    drop(reserve);
    case.say(&format!("{} pages\n", pages()));
}

/// So many bytes in one piece.
pub(crate) fn allocate(case: Case) {
    let block = black_box(vec![1u8; case.number(20_000_000)]);
    let text = format!("{} bytes\n", block.len());
    case.say(&text);
}

/// Piece by piece, and keeps all.
pub(crate) fn leak() -> ! {
    loop {
        black_box(Vec::leak(vec![1u8; PAGE]));
    }
}

/// One instruction that takes long, again and again: between two of them only fuel is counted.
pub(crate) fn fill_for_ever() -> ! {
    let mut block = vec![0u8; 8 << 20];
    loop {
        black_box(&mut block).fill(1);
    }
}

/// Recurses so deep, by default for ever.
pub(crate) fn stack(case: Case) {
    let depth = down(case.number(usize::MAX));
    case.say(&format!("{depth}\n"));
}

/// No tail call: the sum waits for the level below.
#[inline(never)]
fn down(levels: usize) -> usize {
    if levels == 0 { 0 } else { black_box(down(black_box(levels - 1))) + 1 }
}

#[cfg(target_arch = "wasm32")]
fn pages() -> usize {
    core::arch::wasm32::memory_size(0)
}

/// The first of the new pages.
#[cfg(target_arch = "wasm32")]
fn more(by: usize) -> Option<usize> {
    let first = core::arch::wasm32::memory_grow(0, by);
    (first != usize::MAX).then_some(first)
}

#[cfg(target_arch = "wasm32")]
fn write_to(page: usize) {
    // In one statement, so that the allocator cannot take the page in between; nobody else uses it.
    #[allow(unsafe_code, reason = "the page was just grown by us")]
    unsafe {
        std::ptr::with_exposed_provenance_mut::<u8>(page * PAGE).write_volatile(1);
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn pages() -> usize {
    0
}

#[cfg(not(target_arch = "wasm32"))]
fn more(_: usize) -> Option<usize> {
    None
}

#[cfg(not(target_arch = "wasm32"))]
fn write_to(_: usize) {}
