//! leaf.
