//! What failed rests before it is tried again, so that a failure that stays is said
//! once and fills no record.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The first rest; each further failure doubles it.
const FIRST: Duration = Duration::from_secs(2);
/// The longest: some fifty tries a day.
const LONGEST: Duration = Duration::from_secs(30 * 60);

/// What failed, by what was to be done.
#[derive(Debug, Default)]
pub(super) struct Rests(BTreeMap<&'static str, Failed>);

#[derive(Debug)]
struct Failed {
    /// What it was done with: anything else is tried at once.
    with: String,
    said: String,
    rest: Duration,
    until: Instant,
}

impl Rests {
    /// What was said when this failed, while it rests.
    pub(super) fn said(&self, what: &str, with: &str, now: Instant) -> Option<&str> {
        let failed = self.0.get(what)?;
        (failed.with == with && now < failed.until).then_some(failed.said.as_str())
    }

    /// Notes that it failed.
    pub(super) fn failed(&mut self, what: &'static str, with: &str, said: String, now: Instant) {
        let before = self.0.get(what).filter(|failed| failed.with == with);
        let rest = before.map_or(FIRST, |failed| failed.rest.saturating_mul(2).min(LONGEST));
        let failed = Failed {
            with: with.to_owned(),
            said,
            rest,
            until: now + rest,
        };
        self.0.insert(what, failed);
    }

    /// Notes that it was done.
    pub(super) fn done(&mut self, what: &str) {
        self.0.remove(what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_again_and_again_rests_longer_each_time_and_up_to_a_bound() {
        let mut rests = Rests::default();
        let mut now = Instant::now();
        let mut tried = Vec::new();
        for _ in 0..15 {
            rests.failed("a file", "a", "no".to_owned(), now);
            let began = now;
            while rests.said("a file", "a", now) == Some("no") {
                now += FIRST;
            }
            tried.push((now - began).as_secs());
        }
        assert_eq!(tried[..4], [2, 4, 8, 16]);
        assert_eq!(tried[12..], [LONGEST.as_secs(); 3]);
        rests.failed("a file", "a", "no".to_owned(), now);
        assert_eq!(rests.said("a file", "b", now), None, "another is tried");
        assert_eq!(rests.said("a card", "a", now), None);
        rests.done("a file");
        assert_eq!(rests.said("a file", "a", now), None);
    }
}
