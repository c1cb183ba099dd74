//! hashpact.
