//! The public API: gRPC and HTTP/JSON on one port, and the one view.
