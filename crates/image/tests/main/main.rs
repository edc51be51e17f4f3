//! What bytes are told to be.

mod archive;
mod disk;
mod made;
mod names;
mod qcow2;
mod suggest;
