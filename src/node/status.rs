//! The node at a glance, with what wants attention.

use std::collections::BTreeMap;

use hashpact_core::access::MemberAccess;
use hashpact_core::id::UnixMillis;
use hashpact_core::roster::RosterState;
use hashpact_store::{FeedInfo, Room};

use crate::error::NodeError;
use crate::expiry;
use crate::model::Status;
use crate::node::Node;
use crate::views;
use crate::words::name_of;

/// Witnesses below which forks are found but not prevented.
const WITNESSES_FOR_PREVENTION: usize = hashpact_core::witness::judge::PREVENTION_MIN;

impl Node {
    /// Whether this node holds no hashes and publishes nothing.
    #[must_use]
    pub fn only_witnesses(&self) -> bool {
        self.witnessing()
            .is_some_and(|witnessing| witnessing.only())
    }

    /// The node at a glance. Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn status(&self) -> Result<Status, NodeError> {
        let feeds = self.store().feeds();
        let peers = self.exchange().map(|view| view.peers()).unwrap_or_default();
        let connected = peers
            .iter()
            .filter(|peer| peer.state == "connected")
            .count();
        let mut status = Status {
            member: self.member_slug().clone(),
            node: self.name().clone(),
            coalition: None,
            genesis: self.membership().genesis(),
            roster_version: 0,
            roster_state: "none",
            roster_expires: UnixMillis::default(),
            card_version: 0,
            card_expires: UnixMillis::default(),
            ready: self.is_ready() && self.membership().state().chain.is_some(),
            notices: Vec::new(),
            feeds: count(feeds.len()),
            leaves: feeds.iter().map(|feed| feed.indexed).sum(),
            live_entries: feeds.iter().map(views::live_entries).sum(),
            quarantined: 0,
            policy: self.policy().name.clone(),
            policy_rules: count(self.policy().policy.rules().len()),
            policy_since: self.policy().since,
            mutes: count(self.mutes()?.len()),
            store_bytes: self.store().stats()?.disk_bytes,
            peers: count(peers.len()),
            peers_connected: count(connected),
            started: self.started(),
        };
        self.add_coalition(&mut status);
        self.add_stale_roster(&mut status);
        self.add_closed_sets(&mut status);
        self.add_policy_names(&mut status);
        self.add_quarantine(&mut status, &feeds)?;
        self.add_space(&mut status)?;
        self.add_stale(&mut status, &feeds)?;
        self.add_mass(&mut status, &feeds)?;
        self.add_restored(&mut status);
        status.notices.extend(self.recheck_notice()?);
        if let Some(expires) = self.certificate_expires() {
            let now = self.clock().now();
            let said = expiry::notice("the TLS certificate", expires, now);
            status.notices.extend(said);
        }
        status.notices.extend(self.lost_notice()?);
        status.notices.extend(self.reported_notice());
        status.notices.extend(self.notices());
        if !self.only_witnesses() {
            status.notices.push(
                "hash lists are sensitive: keep the store on an encrypted volume (hashpact cannot \
                 see whether it is)"
                    .to_owned(),
            );
        }
        Ok(status)
    }

    fn add_coalition(&self, status: &mut Status) {
        let state = self.membership().state();
        let Some(chain) = state.chain.as_ref() else {
            let notice = "no roster yet: `hashpact roster import FILE`, or connect to a peer";
            status.notices.push(notice.to_owned());
            return;
        };
        let now = self.clock().now();
        let roster = chain.roster();
        status.coalition = Some(roster.coalition.to_string());
        status.roster_version = roster.version;
        status.roster_expires = roster.expires;
        status.roster_state = match chain.state(now) {
            RosterState::Fresh => "fresh",
            RosterState::Grace => "grace",
            RosterState::Stale => "stale",
        };
        match chain.state(now) {
            RosterState::Fresh => {
                let said = expiry::notice("the roster", roster.expires, now);
                status.notices.extend(said);
            }
            state @ (RosterState::Grace | RosterState::Stale) => notice_state(status, state),
        }
        let own = roster.member_by_slug(self.member_slug()).map(|m| m.number);
        let access = self.membership().snapshot().zip(own);
        let access = access.map(|(snapshot, own)| snapshot.member(own));
        let cut_off = match access {
            Some(MemberAccess::Suspended) => Some(("suspended", "goes on matching")),
            Some(MemberAccess::Removed) => Some((
                "removed from the coalition",
                "of other members matches no more",
            )),
            Some(MemberAccess::Active | MemberAccess::Denied | MemberAccess::Unknown) | None => {
                None
            }
        };
        if let Some((how, held)) = cut_off {
            status.notices.push(format!(
                "this member is {how}: nobody exchanges with it; what it holds {held}; the \
                 administrators know why"
            ));
        }
        if let Some(card) = own.and_then(|own| state.cards.newest(own)) {
            status.card_version = card.card().version;
            status.card_expires = card.card().expires;
            let said = expiry::notice("this member's node card", card.card().expires, now);
            status.notices.extend(said);
        } else {
            let notice = "no node card of this member is known: it takes no part yet";
            status.notices.push(notice.to_owned());
        }
        let witnesses = roster
            .active_with(hashpact_core::roster::Role::Witness)
            .count();
        if witnesses < WITNESSES_FOR_PREVENTION {
            let them = if witnesses == 1 {
                "witness"
            } else {
                "witnesses"
            };
            status.notices.push(format!(
                "detection only: {witnesses} {them}; forks are found by readers comparing \
                 heads, from {WITNESSES_FOR_PREVENTION} on they are prevented"
            ));
        }
    }

    /// Rules that a slip in a name may have made about nothing.
    fn add_policy_names(&self, status: &mut Status) {
        let unknown = self.unknown_policy_names(&self.policy().policy);
        if let Some(first) = unknown.first() {
            let more = match unknown.len() {
                1 => String::new(),
                names => format!(" ({} more)", names.saturating_sub(1)),
            };
            status.notices.push(format!(
                "the policy names what this node does not know: {first}{more}; is it written \
                 right? `hashpact policy check` shows all"
            ));
        }
    }

    fn add_quarantine(&self, status: &mut Status, feeds: &[FeedInfo]) -> Result<(), NodeError> {
        let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
        for feed in feeds {
            let waiting = self.store().waiting(feed.no)?;
            status.quarantined = status.quarantined.saturating_add(waiting);
            for lot in self.store().quarantine(feed.no)? {
                let count = reasons.entry(lot.name.reason.code()).or_default();
                *count = count.saturating_add(lot.held);
            }
        }
        let reasons: Vec<String> = reasons
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        if !reasons.is_empty() {
            status.notices.push(format!(
                "in quarantine, not matched: {}; `hashpact quarantine list` shows them",
                reasons.join(", ")
            ));
        }
        Ok(())
    }

    /// PROTOCOL 11.18: nobody says lately that the roster is the newest one.
    fn add_stale_roster(&self, status: &mut Status) {
        let standing = self.roster_standing();
        let Some(standing) = standing.filter(|standing| standing.judged.stale) else {
            return;
        };
        let version = standing.version;
        status.notices.push(format!(
            "ALARM: the roster is STALE: no witness has cosigned version {version} for 30 minutes, \
             so a newer one may be kept from this node; what it holds still counts"
        ));
    }

    /// Feeds of which no witness has spoken lately.
    fn add_stale(&self, status: &mut Status, feeds: &[FeedInfo]) -> Result<(), NodeError> {
        let mut stale = Vec::new();
        for feed in feeds {
            if self.is_stale(feed)? {
                stale.push(name_of(feed));
            }
        }
        if let Some(first) = stale.first() {
            let feeds = stale.len();
            status.notices.push(format!(
                "ALARM: {feeds} feeds are STALE, {first} among them: no witness has cosigned them \
                 for 30 minutes, so this node may be shown an old state; they are not served on \
                 (hashpact feeds SET)"
            ));
        }
        Ok(())
    }

    /// Sets of which more was taken back than a feed key alone may.
    fn add_mass(&self, status: &mut Status, feeds: &[FeedInfo]) -> Result<(), NodeError> {
        for feed in feeds {
            let held = self.store().held_retractions(feed.no)?.len();
            if held > 0 {
                status.notices.push(format!(
                    "ALARM: {held} leaves take back more of {} than its feed key alone may; what \
                     they name is answered for review until the identity key signs for it. Ask \
                     the publisher: is its feed key stolen? (hashpact set show)",
                    name_of(feed)
                ));
            }
        }
        Ok(())
    }

    /// Sets of others that may be older here than they were.
    fn add_restored(&self, status: &mut Status) {
        let feeds = self.store().unconfirmed();
        let Some(first) = feeds.first() else { return };
        let (sets, first) = (feeds.len(), name_of(first));
        status.notices.push(format!(
            "ALARM: the store was restored, or lost what it had: {sets} sets of others, {first} \
             among them, are answered for review at most until their publishers or all peers \
             within reach have said what they hold (hashpact feeds; hashpact set confirm-head \
             MEMBER/SET where none can be reached)"
        ));
    }

    fn add_space(&self, status: &mut Status) -> Result<(), NodeError> {
        let (room, space) = self.store().room()?;
        let what = match room {
            Room::Ample => return Ok(()),
            Room::RecordsOnly => {
                "no new entries are pulled or imported (disk_low), retractions and erasures are"
            }
            Room::Nothing => "nothing is pulled or imported any more (disk_low)",
        };
        status.notices.push(format!(
            "{} MiB are free on the store's volume, {} MiB are to stay so \
             (store.free_min_bytes): {what}; make room",
            space.free_bytes >> 20,
            space.min_bytes >> 20
        ));
        Ok(())
    }

    fn add_closed_sets(&self, status: &mut Status) {
        for feed in self.publisher().feeds() {
            if let Some(why) = self.publisher().closed(&feed.id) {
                let name = views::describe_of(&feed)
                    .map_or_else(|| feed.id.to_string(), |d| d.name.to_string());
                status
                    .notices
                    .push(format!("{name} is closed for publishing: {why}"));
            }
        }
    }
}

/// PROTOCOL 5.7: an expired roster never disarms matching; it is said what it does.
fn notice_state(status: &mut Status, state: RosterState) {
    match state {
        RosterState::Fresh => {}
        RosterState::Grace => status.notices.push(
            "the roster has expired: 14 days after its expiry no new entry counts any more; ask \
             the administrators for a new one"
                .to_owned(),
        ),
        RosterState::Stale => status.notices.push(
            "the roster expired more than 14 days ago: new entries wait in quarantine \
             (stale_roster) until a new roster comes; what was held still matches, retractions \
             still count"
                .to_owned(),
        ),
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
