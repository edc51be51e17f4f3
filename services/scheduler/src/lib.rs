//! Labs, placement, operations, observed facts and the event log.
