//! The tutorial, line by line.

use netloom_tests::docs::Page;

use super::docs::{root, run_page};

/// Where it is.
pub const PAGE: &str = "docs/tutorial.md";

#[test]
fn every_step_does_what_it_says() {
    if crate::real("main::tutorial::every_step_does_what_it_says") {
        let outcome = run_page(&Page::read(&root(), PAGE));
        assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
    }
}
