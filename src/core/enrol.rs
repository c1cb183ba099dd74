//! enrol.
