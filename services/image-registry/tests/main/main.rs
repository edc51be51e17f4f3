//! The image registry from outside: its store's contract, and the service over an in-memory channel.

mod grpc;
mod held;
mod images;
mod pull;
mod s3;
mod store;
