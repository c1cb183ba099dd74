//! The policy in force, and what this node mutes.
//!
//! The rules and their evaluation are the core's; here stand which policy is in force,
//! whence its facts come ([`judge`]), mutes ([`mutes`]), why a signal gets its verdict
//! ([`explain`]) and what another policy would change ([`compare`]). Reading a file is
//! the program's: what comes here is checked, and in force as a whole.
//!
//! The text of the policy in force is kept in the store: a node that starts beside a file
//! that is wrong goes on with it, neither milder nor stricter than it was. Which one was in
//! force when is kept as well, for verdicts of the past ([`past`]).

mod compare;
mod doubts;
mod explain;
mod floods;
mod judge;
mod mutes;
mod names;
mod past;
mod telling;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use hashpact_core::id::{Digest, SetName, UnixMillis};
use hashpact_core::policy::{Policy, Salt};
pub use hashpact_store::PolicyAt;
use hashpact_store::{IndexKey, Store};
use tracing::{error, info};

use crate::error::NodeError;
use crate::hygiene::HygieneOptions;
use crate::node::Node;

pub use self::compare::{Compared, Example, Shift};
pub use self::doubts::Doubts;
pub use self::explain::{Explained, ExplainedLeaf};
pub use self::floods::Flood;
pub use self::judge::Judge;
pub use self::mutes::{CASE_MAX_CHARS, MUTE_MAX_MS, MuteOf, MuteView};
pub use self::past::VerdictUnknown;
pub use self::telling::TELL_MAX;

use self::floods::Floods;
use self::mutes::Mutes;

/// The longest text of a policy that is taken and kept.
pub const TEXT_MAX_BYTES: usize = 256 * 1024;
/// What answers call the shipped policy.
pub const SHIPPED: &str = "shipped";
/// Between two words of a running node that its policy is in force still: of so much time
/// before a crash nobody knows afterwards.
const STANDS_MS: u64 = 60_000;

/// The policy in force.
#[derive(Debug, Clone)]
pub struct InForce {
    /// The rules.
    pub policy: Policy,
    /// As answers name it: SHA-256 of its text, or [`SHIPPED`].
    pub name: String,
    /// Since when this node goes by it, or since its start.
    pub since: UnixMillis,
}

/// What a node judges by.
pub(crate) struct Desk {
    pub(crate) salt: Salt,
    force: ArcSwap<InForce>,
    mutes: ArcSwap<Mutes>,
    /// One change at a time; readers never wait.
    turn: Mutex<()>,
    refused: AtomicBool,
    /// Which policy this process noted last, and when it said so.
    noted: Mutex<Option<(String, UnixMillis)>>,
    /// Whether opinions were looked for that a mute, which is not kept any more, had told.
    untold: AtomicBool,
    floods: Floods,
}

impl Desk {
    /// Takes back what the store holds; the policy comes from its file afterwards.
    pub(crate) fn open(
        store: &Store,
        now: UnixMillis,
        hygiene: HygieneOptions,
    ) -> Result<Self, NodeError> {
        let salt = Salt::new(store.secret(rand::random())?);
        let mutes = Mutes::of(&store.mutes()?, now);
        Ok(Self {
            salt,
            force: ArcSwap::from_pointee(InForce {
                policy: Policy::default(),
                name: SHIPPED.to_owned(),
                since: now,
            }),
            mutes: ArcSwap::from_pointee(mutes),
            turn: Mutex::default(),
            refused: AtomicBool::new(false),
            noted: Mutex::default(),
            untold: AtomicBool::new(false),
            floods: Floods::new(hygiene),
        })
    }

    /// What floods.
    pub(crate) const fn floods(&self) -> &Floods {
        &self.floods
    }

    /// What this node calls a signal where its value must not stand.
    pub(crate) fn signal_name(&self, key: &IndexKey) -> String {
        mutes::signal_name(&self.salt, key)
    }

    fn mutes(&self) -> Arc<Mutes> {
        self.mutes.load_full()
    }

    fn noted(&self) -> MutexGuard<'_, Option<(String, UnixMillis)>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is said with every entry of a set as far as it follows from here: where it
    /// changes, consumers of changes are told all of them again.
    pub(crate) fn words_of(&self, set: &SetName, now: UnixMillis) -> String {
        let force = self.force.load();
        let policy = if force.name == SHIPPED {
            ""
        } else {
            force.name.as_str()
        };
        let muted = if self.mutes.load().set(set, now) {
            " muted"
        } else {
            ""
        };
        let between = if policy.is_empty() { "" } else { " " };
        format!("{between}{policy}{muted}")
    }
}

impl Node {
    pub(crate) const fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> Arc<InForce> {
        self.desk().force.load_full()
    }

    /// The text of the policy that was taken last; `None` for the shipped one. Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn kept_policy(&self) -> Result<Option<Vec<u8>>, NodeError> {
        Ok(self.store().policy_text()?)
    }

    /// The policy that this node went by at a time, as far as that is known. Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn policy_at(&self, time: UnixMillis) -> Result<PolicyAt, NodeError> {
        self.say_that_it_stands(0)?;
        Ok(self.store().policy_at(time)?)
    }

    /// Notes that the policy is in force still; to be called often. Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn stand_by_policy(&self) -> Result<(), NodeError> {
        self.say_that_it_stands(STANDS_MS)
    }

    /// Notes that the policy was in force until now: the node stops. Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn leave_policy(&self) -> Result<(), NodeError> {
        self.say_that_it_stands(0)
    }

    fn say_that_it_stands(&self, after_ms: u64) -> Result<(), NodeError> {
        let now = self.clock().now();
        let mut noted = self.desk().noted();
        if let Some((_, said)) = noted.as_mut()
            && now.0.abs_diff(said.0) >= after_ms
        {
            self.store().extend_policy(now)?;
            *said = now;
        }
        Ok(())
    }

    /// Notes which policy comes into force, unless this process has said so already.
    fn note_policy(&self, name: &str, text: Option<&[u8]>) -> Result<(), NodeError> {
        let now = self.clock().now();
        let mut noted = self.desk().noted();
        if noted.as_ref().is_none_or(|(before, _)| before != name) {
            let goes_on = noted.is_some();
            self.store().begin_policy(name, text, now, goes_on)?;
            *noted = Some((name.to_owned(), now));
        }
        Ok(())
    }

    /// Takes a policy and the text that it was read from; `None` is the shipped one. It is
    /// kept, and in force once this returns: whoever asks afterwards is answered by it.
    /// Answers whether it is another than before. Blocking.
    ///
    /// # Errors
    /// What the store answers; then the old one stays.
    pub fn set_policy(&self, new: Option<(Policy, &[u8])>) -> Result<bool, NodeError> {
        let desk = self.desk();
        let _turn = desk.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (policy, text) = match new {
            Some((policy, text)) => (policy, Some(text)),
            None => (Policy::default(), None),
        };
        let name = text.map_or_else(|| SHIPPED.to_owned(), |text| Digest::of(text).to_string());
        desk.refused.store(false, Ordering::SeqCst);
        self.set_notice("policy", None);
        if self.kept_policy()?.as_deref() != text {
            self.store().put_policy_text(text)?;
        }
        self.note_policy(&name, text)?;
        if desk.force.load().name == name {
            return Ok(false);
        }
        let rules = policy.rules().len();
        info!(policy = name, rules, "the policy in force");
        let since = self.clock().now();
        desk.force.store(Arc::new(InForce {
            policy,
            name,
            since,
        }));
        self.following().wake();
        Ok(true)
    }

    /// Says that a policy was refused, and why; the one in force stays.
    pub fn refuse_policy(&self, why: &str) {
        let desk = self.desk();
        let force = desk.force.load();
        error!(
            in_force = force.name,
            "the policy is refused, the old one stays: {why}"
        );
        desk.refused.store(true, Ordering::SeqCst);
        let first = why.lines().next().unwrap_or_default();
        self.set_notice(
            "policy",
            Some(format!(
                "the policy is refused, the old one stays in force: {first}; hashpact policy \
                 check shows all that is wrong"
            )),
        );
    }

    /// Whether the newest policy that was read was refused.
    #[must_use]
    pub fn policy_is_refused(&self) -> bool {
        self.desk().refused.load(Ordering::SeqCst)
    }
}
