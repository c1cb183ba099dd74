//! liveness.
