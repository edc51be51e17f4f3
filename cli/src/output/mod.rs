//! What the commands print, as pure functions of what the server said: each gives text, so that tests compare it.

pub mod csv;
pub mod diagnostics;
pub mod error;
pub mod events;
pub mod evidence;
pub mod host;
pub mod image;
pub mod interfaces;
pub mod json;
pub mod kind;
pub mod lines;
pub mod path;
pub mod plan;
pub mod progress;
pub mod reasons;
pub mod style;
pub mod table;
pub mod words;
