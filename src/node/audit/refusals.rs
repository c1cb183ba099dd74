//! What was refused, counted by minute and caller, and recorded once a minute is over.
//!
//! Bounded: so many callers a minute have a leaf of their own, and so many kinds of
//! refusal; what is beyond is counted together. So whoever is refused without end
//! writes one leaf a minute.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use hashpact_core::id::UnixMillis;
use hashpact_core::leaf::audit::{Act, Actor, COUNTS_MAX};

use super::Audit;

/// Callers of one minute that have a leaf of their own.
pub(super) const CALLERS_MAX: usize = 32;
/// The one name that all others have.
const OTHERS: &str = "others";
/// The outcome of what was counted.
const REFUSED: &str = "refused";
const MINUTE_MS: u64 = 60_000;

/// Counts that wait for their minute to be over.
#[derive(Default)]
pub(super) struct Refusals(BTreeMap<(u64, String), Refused>);

struct Refused {
    actor: Actor,
    member: String,
    counts: BTreeMap<String, u64>,
}

impl Refusals {
    fn add(&mut self, minute: u64, actor: Actor, member: &str, what: String) {
        let (actor, member) = self.caller(minute, actor, member);
        let key = (minute, name(&actor));
        let refused = self.0.entry(key).or_insert_with(|| Refused {
            actor,
            member,
            counts: BTreeMap::new(),
        });
        let room = refused.counts.len() < COUNTS_MAX - 1 || refused.counts.contains_key(&what);
        let what = if room { what } else { OTHERS.to_owned() };
        let count = refused.counts.entry(what).or_default();
        *count = count.saturating_add(1);
    }

    /// The caller, or `others` where there is no room for one more.
    fn caller(&self, minute: u64, actor: Actor, member: &str) -> (Actor, String) {
        let of_minute = self.0.range((minute, String::new())..);
        let known = self.0.contains_key(&(minute, name(&actor)));
        if known || of_minute.count() < CALLERS_MAX {
            return (actor, member.to_owned());
        }
        let others = Actor {
            name: OTHERS.to_owned(),
            uid: None,
            command: String::new(),
            ..actor
        };
        (others, String::new())
    }

    /// Takes what was counted in minutes before `minute` away.
    fn take_before(&mut self, minute: u64) -> Vec<Act> {
        let later = self.0.split_off(&(minute, String::new()));
        let done = std::mem::replace(&mut self.0, later);
        done.into_iter()
            .map(|((minute, _), refused)| refused.act(minute))
            .collect()
    }
}

impl Refused {
    fn act(self, minute: u64) -> Act {
        let mut act = Act::new("refused", self.actor).of_member(self.member);
        act.began = UnixMillis(minute.saturating_mul(MINUTE_MS));
        for (what, count) in self.counts {
            act.count(&what, count);
        }
        act
    }
}

/// What tells callers apart.
fn name(actor: &Actor) -> String {
    let uid = actor.uid.map(|uid| uid.to_string()).unwrap_or_default();
    format!("{} {} {uid}", actor.via, actor.name)
}

impl Audit {
    /// Counts a call that was refused; `member` is who called, if a member did. Never
    /// waits for the disk.
    pub fn refused(&self, actor: Actor, member: &str, call: &str, code: &str) {
        let minute = self.clock.now().0 / MINUTE_MS;
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.add(minute, actor, member, format!("{call} {code}"));
    }

    /// Records the minutes that are over, or all.
    pub(super) fn record_refused(&self, all: bool) {
        let minute = if all {
            u64::MAX
        } else {
            self.clock.now().0 / MINUTE_MS
        };
        let over = {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.take_before(minute)
        };
        for act in over {
            self.note(act, REFUSED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(n: usize) -> Actor {
        Actor {
            via: "federation".to_owned(),
            name: format!("m{n}/main"),
            ..Actor::default()
        }
    }

    #[test]
    fn refusals_are_counted_by_minute_and_caller() {
        let mut refusals = Refusals::default();
        for minute in [1, 1, 2] {
            refusals.add(minute, caller(0), "m0", "pull not_found".to_owned());
        }
        refusals.add(1, caller(0), "m0", "hello busy".to_owned());
        refusals.add(1, caller(1), "m1", "pull not_found".to_owned());
        let acts = refusals.take_before(2);
        let said: Vec<_> = acts
            .iter()
            .map(|act| (act.began.0, act.member.as_str(), act.counts.clone()))
            .collect();
        let count = |what: &str, n| (what.to_owned(), n);
        let first = vec![count("hello busy", 1), count("pull not_found", 2)];
        let second = vec![count("pull not_found", 1)];
        assert_eq!(said, [(60_000, "m0", first), (60_000, "m1", second)]);
        assert_eq!(refusals.take_before(u64::MAX).len(), 1);
    }

    #[test]
    fn whoever_is_refused_without_end_takes_no_more_room() {
        let mut refusals = Refusals::default();
        for n in 0..1_000 {
            refusals.add(1, caller(n), &format!("m{n}"), format!("call {n}"));
            refusals.add(1, caller(0), "m0", format!("call {n}"));
        }
        let acts = refusals.take_before(2);
        assert_eq!(acts.len(), CALLERS_MAX + 1);
        let total: u64 = acts
            .iter()
            .flat_map(|act| &act.counts)
            .map(|(_, n)| n)
            .sum();
        assert_eq!(total, 2_000, "none is forgotten");
        assert!(acts.iter().all(|act| act.counts.len() <= COUNTS_MAX));
        assert_eq!(
            acts.iter().filter(|act| act.actor.name == OTHERS).count(),
            1
        );
    }
}
