//! suspension.
