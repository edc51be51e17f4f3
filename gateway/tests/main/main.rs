//! The gateway against services in memory that answer with fixed facts: what it says, how it refuses, how its streams behave.

mod calls;
mod captures;
mod changes;
mod collector;
mod connections;
mod errors;
mod events;
mod fake;
mod fixture;
mod garbage;
mod golden;
mod imports;
mod law;
mod metrics;
mod one_view;
mod openapi;
mod raw;
mod reflect;
mod refusals;
mod rig;
mod streams;
mod traces;
mod transcoding;
mod uploads;
mod web;
mod wire;
