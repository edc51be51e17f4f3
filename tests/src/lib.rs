//! End-to-end, crash, law and contract suites.
