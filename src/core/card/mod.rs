//! card.
