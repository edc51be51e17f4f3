//! Topology files (containerlab's format) to a LabSpec and diagnostics.
