//! Drives the witness of the roster chain, and tells and hears what witnesses say of it.
//!
//! The core's [`RosterWitness`] decides; here is what it needs of the disk, the key and
//! the peers. Words that need a roster or a card which is not here yet wait for it, of
//! each peer those that it said last. Blocking: a record is synced here.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use hashpact_core::access::Snapshot;
use hashpact_core::checkpoint;
use hashpact_core::id::{Digest, UnixMillis};
use hashpact_core::note::SignatureLine;
use hashpact_core::puller::PeerId;
use hashpact_core::witness::roster::{Next, RosterHead, RosterTree, RosterWitness, record_id};
use hashpact_node::roster_words::ToldWords;
use hashpact_node::witnessing::Witnessing;

use super::announce::Teller;
use super::driver::Driver;
use super::vouched::AGAIN_MS;
use crate::types::Announcement;

/// Lines of one peer that wait: as many witnesses as have anything new to say at once.
const LATER_MAX: usize = 64;
/// What shows that this node's word and its chain do not go together.
const NOTICE: &str = "roster witness";

/// What a driver knows of the cosigning of the roster chain.
#[derive(Default)]
pub(super) struct RosterCosigning {
    machine: RosterWitness,
    wake: Option<UnixMillis>,
    later: BTreeMap<PeerId, (u64, Digest, Vec<Bytes>)>,
    /// Another roster of a version has been cosigned: said once.
    elsewhere: BTreeSet<(u64, String)>,
}

impl RosterCosigning {
    pub(super) const fn wake(&self) -> Option<UnixMillis> {
        self.wake
    }

    pub(super) const fn settle(&mut self) {
        self.machine.settle();
    }

    pub(super) const fn rekeyed(&mut self) {
        self.machine.rekeyed();
    }

    pub(super) fn forget(&mut self, peer: PeerId) {
        self.later.remove(&peer);
    }
}

impl Driver {
    /// Tells the witness of the chain what is recorded.
    pub(super) fn begin_roster(&mut self, witnessing: &Witnessing) {
        let record = record_id(&self.node.membership().genesis());
        self.roster
            .machine
            .hold(witnessing.recorded_roster(&record));
    }

    /// A peer says what witnesses have said of the chain up to a version.
    pub(super) fn roster_words(
        &mut self,
        peer: PeerId,
        version: u64,
        digest: Digest,
        lines: Vec<Bytes>,
    ) {
        if lines.is_empty() {
            return;
        }
        let heard = self.node.hear_roster_words(version, digest, &lines);
        for rejection in &heard.refused {
            self.note_rejected(peer, None, rejection);
        }
        if heard.later {
            let kept = self.own_first(lines);
            self.roster.later.insert(peer, (version, digest, kept));
        }
        for name in heard.elsewhere {
            // Bounded: witnesses, and versions that are held.
            if self.roster.elsewhere.insert((version, name.clone())) {
                metrics::counter!("hashpact_roster_elsewhere_total").increment(1);
                tracing::error!(
                    version,
                    witness = name,
                    "a witness has cosigned another roster of a version that is held: ask the \
                     administrators which one is right (hashpact evidence list)"
                );
            }
        }
        if let Some((version, root)) = heard.own {
            self.roster.machine.own_word(version, root);
            self.cosign_roster();
        }
    }

    /// ⚠ This witness's own word is never what is left out.
    fn own_first(&self, mut lines: Vec<Bytes>) -> Vec<Bytes> {
        if let Ok(coalition) = self.node.membership().coalition() {
            let own = checkpoint::witness_name(&coalition, self.node.member_slug());
            let is_own = |line: &Bytes| SignatureLine::parse(line).is_ok_and(|l| l.name == own);
            lines.sort_by_key(|line| !is_own(line));
        }
        lines.truncate(LATER_MAX);
        lines
    }

    /// A roster or a card came: what waited for one is looked at again.
    pub(super) fn roster_changed(&mut self) {
        for (peer, (version, digest, lines)) in std::mem::take(&mut self.roster.later) {
            self.roster_words(peer, version, digest, lines);
        }
        self.cosign_roster();
    }

    /// The time has come that the witness of the chain asked for.
    pub(super) fn roster_tick(&mut self) {
        let now = self.node.clock().now();
        if self.roster.wake.take_if(|at| *at <= now).is_some() {
            self.cosign_roster();
        }
    }

    /// Records and cosigns what may be cosigned now.
    pub(super) fn cosign_roster(&mut self) {
        let Some(witnessing) = self.node.witnessing().cloned() else {
            return;
        };
        let Some(tree) = self.node.roster_tree() else {
            return;
        };
        let now = self.node.clock().now();
        let mut notice = None;
        loop {
            match self.roster.machine.next(now, &tree) {
                Next::Wait(until) => {
                    self.roster.wake = until;
                    break;
                }
                Next::Record(_) | Next::Sign(_) if !self.may_cosign_roster() => break,
                Next::Record(head) => {
                    if !self.record_roster(&witnessing, &tree, &head) {
                        break;
                    }
                }
                Next::Sign(head) => {
                    if !self.sign_roster(&witnessing, &tree, &head, now) {
                        break;
                    }
                    self.roster.machine.signed(now, head.version);
                }
                Next::Behind { version } => {
                    notice = Some(format!(
                        "the roster is not cosigned: this witness cosigned version {version} \
                         before, and this node has an older one (a restored disk?)"
                    ));
                    break;
                }
                Next::Differs { version } => {
                    notice = Some(format!(
                        "ALARM: the roster is not cosigned: this witness cosigned another roster \
                         of version {version} than this node has; ask the administrators which \
                         one is right"
                    ));
                    break;
                }
            }
        }
        self.node.set_notice(NOTICE, notice);
    }

    /// Whether others would count the cosignature.
    fn may_cosign_roster(&self) -> bool {
        let own = self.node.membership().own().ok();
        let is_witness = own
            .zip(self.snapshot())
            .is_some_and(|(own, snapshot)| snapshot.is_witness(own));
        is_witness && self.has_listed_key()
    }

    /// ⚠ First the record, then the signature. Answers whether it is recorded.
    fn record_roster(
        &mut self,
        witnessing: &Witnessing,
        tree: &RosterTree,
        head: &RosterHead,
    ) -> bool {
        let Ok(own) = self.node.membership().own() else {
            return false;
        };
        let record = tree.record_id();
        let Err(error) = witnessing.record_roster(record, own, head) else {
            let state = Some((head.version, head.root));
            self.roster.machine.hold(state);
            return true;
        };
        tracing::error!(%error, code = error.code(), "recording which roster is to be cosigned");
        // It may be there all the same.
        match witnessing.read_again(record) {
            Ok(state) => {
                let state = state.map(|state| (state.size, state.root));
                self.roster.machine.hold(state);
            }
            Err(error) => {
                tracing::error!(%error, code = error.code(), "reading which roster was cosigned");
            }
        }
        false
    }

    fn sign_roster(
        &self,
        witnessing: &Witnessing,
        tree: &RosterTree,
        head: &RosterHead,
        now: UnixMillis,
    ) -> bool {
        let Ok(coalition) = self.node.membership().coalition() else {
            return false;
        };
        let of = (&coalition, self.node.member_slug());
        let Some(line) = witnessing.cosign_roster(tree.record_id(), head, of, now) else {
            return false;
        };
        metrics::counter!("hashpact_roster_cosigned_total").increment(1);
        self.node.keep_own_roster_word(head.version, line);
        true
    }
}

impl Teller {
    /// PROTOCOL 16.9a: the newest roster, with what witnesses say of the chain up to it;
    /// before it the versions at which other witnesses stand.
    pub(super) fn roster(&mut self, snapshot: &Snapshot) -> Vec<Announcement> {
        let digest = snapshot.roster().digest();
        let version = snapshot.roster().roster().version;
        let words = self.node.told_roster_words();
        let known = self.worth_telling(digest, &words);
        if self.told.roster.replace(known) == Some(known) {
            return Vec::new();
        }
        let mut said: Vec<Announcement> = Vec::new();
        let mut newest = Vec::new();
        for told in words {
            let lines = told.words.into_iter().map(|(.., line)| line).collect();
            if told.digest == digest {
                newest = lines;
            } else if told.version < version {
                said.push(Announcement::Roster {
                    version: told.version,
                    digest: told.digest,
                    cosignatures: lines,
                });
            }
        }
        said.push(Announcement::Roster {
            version,
            digest,
            cosignatures: newest,
        });
        said
    }

    /// Tells two states apart: this node's own word counts always, that another witness
    /// stands elsewhere, and roughly how fresh the others are.
    fn worth_telling(&self, newest: Digest, words: &[ToldWords]) -> Digest {
        let own = self.node.membership().own().ok();
        let mut text = newest.to_string();
        for told in words {
            for (witness, time_s, _) in &told.words {
                let time_ms = time_s.saturating_mul(1_000);
                let fresh = if Some(*witness) == own {
                    time_ms
                } else {
                    time_ms.checked_div(AGAIN_MS).unwrap_or(0)
                };
                let numbers = [u64::from(witness.value()), told.version, fresh];
                for number in numbers {
                    text.push(' ');
                    text.push_str(&number.to_string());
                }
            }
        }
        Digest::of(text.as_bytes())
    }
}
