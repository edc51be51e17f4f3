//! What bytes are told to be.

mod archive;
mod disk;
mod made;
mod qcow2;
mod suggest;
