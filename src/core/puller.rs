//! puller.
