//! Matching: exact and near-duplicate.
