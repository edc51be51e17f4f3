//! The program from outside: what it prints and how it ends, against a server that says what each test lets it say.

mod capture;
mod changes;
mod deploy;
mod destroy;
mod doctor;
mod events;
mod fake;
mod habits;
mod hosts;
mod interrupt;
mod local;
mod many;
mod moves;
mod nodes;
mod push;
mod shapes;
mod shell;
