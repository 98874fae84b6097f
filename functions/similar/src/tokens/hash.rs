/// FNV-1a, 32 bits, over a marker for pieces that continue a word and the piece's bytes.
pub(crate) fn hash(continues: bool, piece: &[u8]) -> u32 {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    piece.iter().fold(step(0x811c_9dc5, u8::from(continues)), |hash, byte| step(hash, *byte))
}
