//! Whether a qcow2 disk names another file, read in another way than the reader that is tested does.

/// True when these bytes, the beginning of a qcow2 disk, say that it is an overlay or that its data are elsewhere.
pub fn another_file(bytes: &[u8]) -> bool {
    let number = |at: usize| bytes.get(at..at + 4).map_or(0, |b| u32::from_be_bytes(b.try_into().unwrap()));
    let is_third = number(4) == 3;
    let is_overlay = bytes[8..20].iter().any(|b| *b != 0);
    let is_elsewhere = is_third && bytes[79] & 4 != 0;
    let extensions = bytes.len().min(1usize.checked_shl(number(20)).unwrap_or(usize::MAX));
    let mut at = if is_third { number(100) as usize } else { 72 };
    let mut is_named = false;
    while at + 8 <= extensions && number(at) != 0 {
        is_named |= number(at) == 0x4441_5441;
        at += 8 + (number(at + 4) as usize).div_ceil(8) * 8;
    }
    is_overlay || is_elsewhere || is_named
}
