//! Another node, as this one sees it.

use hashpact_core::id::{MemberNumber, Slug, UnixMillis};

/// Another node, as this one sees it.
#[derive(Debug, Clone)]
pub struct PeerView {
    /// Whose it is.
    pub member: MemberNumber,
    /// The member's slug.
    pub slug: Slug,
    /// The node's name on the member's card.
    pub node: Slug,
    /// Where it can be dialled.
    pub endpoints: Vec<String>,
    /// `connected`, `connecting`, `backing off`, `no endpoint`, `not active`.
    pub state: &'static str,
    /// When it last said something; 0 for never.
    pub last_seen: UnixMillis,
    /// When it is dialled next; 0 when that is not planned.
    pub next_attempt: UnixMillis,
    /// The code of what went wrong last, and in words; empty when nothing did.
    pub last_error: (String, String),
    /// The roster version that it said it holds.
    pub roster_version: u64,
    /// What it says it runs.
    pub software: String,
    /// When the certificate that it showed last runs out; 0 where it showed none.
    pub certificate_expires: UnixMillis,
    /// By its word, on how many of its sets each member's receipts are overdue.
    pub overdue_receipts: Vec<(MemberNumber, u64)>,
}

impl PeerView {
    /// Whether it is to be dialled, and may not have heard what was said to all by
    /// then: a connection stands for a while after the way is gone, so it must have
    /// said something since.
    #[must_use]
    pub fn may_have_missed(&self, said: UnixMillis) -> bool {
        match self.state {
            "no endpoint" | "not active" => false,
            "connected" => self.last_seen < said,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(state: &'static str, last_seen: u64) -> PeerView {
        PeerView {
            member: MemberNumber::new(1).unwrap(),
            slug: Slug::parse("lumen").unwrap(),
            node: Slug::parse("main").unwrap(),
            endpoints: Vec::new(),
            state,
            last_seen: UnixMillis(last_seen),
            next_attempt: UnixMillis(0),
            last_error: (String::new(), String::new()),
            roster_version: 1,
            software: String::new(),
            certificate_expires: UnixMillis(0),
            overdue_receipts: Vec::new(),
        }
    }

    #[test]
    fn a_connection_that_only_stands_says_nothing_of_what_was_heard() {
        let said = UnixMillis(1_000);
        for (state, last_seen, missed) in [
            ("connected", 999, true),
            ("connected", 1_000, false),
            ("connecting", 2_000, true),
            ("backing off", 2_000, true),
            ("no endpoint", 0, false),
            ("not active", 0, false),
        ] {
            assert_eq!(
                peer(state, last_seen).may_have_missed(said),
                missed,
                "{state}"
            );
        }
    }
}
