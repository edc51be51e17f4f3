//! Any bytes are answered within bounds, the same however they are cut, and a disk that is taken names no other file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use netloom_image::{Format, Inspector};

#[path = "../../tests/main/names.rs"]
mod names;

fuzz_target!(|bytes: &[u8]| {
    let told = |piece: usize| {
        let mut inspector = Inspector::new();
        bytes.chunks(piece).for_each(|part| inspector.push(part));
        inspector.finish(None, &mut &bytes[..])
    };
    let whole = told(bytes.len().max(1));
    assert_eq!(whole, told(61));
    if let Ok(facts) = whole {
        assert!(facts.format != Format::Qcow2 || !names::another_file(bytes));
    }
});
