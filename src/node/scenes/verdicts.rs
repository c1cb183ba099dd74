//! Verdicts of a whole node against a naive model: members publish, replace, retract and
//! erase entries and say what they think of them, policies judge.
//!
//! Feeds come in any interleaving, in pieces, said again, with restarts between and what is
//! dead dropped between; whole, one after another; or with what is dead left out. All three
//! end where the model does, which knows nothing of stores, order or speed.

use std::collections::{BTreeMap, BTreeSet};

use hashpact_core::leaf::Stance;
use hashpact_core::policy::{Action, ClassPattern, Needs, Negative, Policy, Rule, Scope, Verdict};
use hashpact_store::FindingKind;
use proptest::prelude::*;

use super::feeds::{
    CLASSES, FEEDS, History, MEDIA, Reader, SETS, Says, dead, histories, id_of, md5_of,
};
use super::*;
use crate::model::MatchOptions;

use Verdict::{Enforce, Observe, Review};

/// An entry that stands, as the model sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Stands {
    set: usize,
    index: u64,
    negatives: u64,
    positives: u64,
}

/// All that stands of one medium, with its class and whether it corroborates.
fn standing(all: &[History], media: u64) -> Vec<(Stands, usize, bool)> {
    let mut words: BTreeMap<(usize, (usize, u64)), Stance> = BTreeMap::new();
    for (feed, history) in all.iter().enumerate().skip(SETS) {
        let dead = dead(&history.says, usize::MAX);
        for (at, says) in (0_u64..).zip(&history.says) {
            if let Says::Opinion {
                set, first, stance, ..
            } = says
                && !dead.contains(&at)
            {
                words.insert((feed, (*set, *first)), *stance); // the last word counts
            }
        }
    }
    let mut found = Vec::new();
    for (set, history) in all.iter().enumerate().take(SETS) {
        let dead = dead(&history.says, usize::MAX);
        for (index, says) in (0_u64..).zip(&history.says) {
            let Says::Publish {
                media: of,
                inherited,
                class,
                replaces,
            } = says
            else {
                continue;
            };
            if *of != media || dead.contains(&index) {
                continue;
            }
            let first = replaces.first().copied().unwrap_or(index);
            let count = |wanted| {
                let of_entry = words
                    .iter()
                    .filter(|((_, about), _)| *about == (set, first));
                of_entry.filter(|(_, stance)| **stance == wanted).count() as u64
            };
            let stands = Stands {
                set,
                index,
                negatives: count(Stance::Negative),
                positives: count(Stance::Positive),
            };
            found.push((stands, *class, !inherited));
        }
    }
    found
}

/// A policy of one rule that enforces, and one that caps what is disputed.
#[derive(Debug, Clone)]
struct Simple {
    members: u64,
    alone: Option<usize>,
    class: Option<usize>,
    negative: Negative,
    capped_from: Option<u64>,
    default: Verdict,
}

fn simple() -> impl Strategy<Value = Simple> {
    (
        1..4_u64,
        prop::option::of(0..SETS),
        prop::option::of(0..CLASSES.len()),
        prop::sample::select(Negative::ALL.to_vec()),
        prop::option::of(1..3_u64),
        prop::sample::select(vec![Review, Observe]),
    )
        .prop_map(
            |(members, alone, class, negative, capped_from, default)| Simple {
                members,
                alone,
                class,
                negative,
                capped_from,
                default,
            },
        )
}

fn slug_of(set: usize) -> &'static str {
    FEEDS[set].1.split('/').next().unwrap()
}

fn policy_of(simple: &Simple) -> Policy {
    let mut scope = Scope::default();
    let class = simple.class.map(|class| format!("tc:{}", CLASSES[class]));
    let classes = class
        .iter()
        .map(|class| ClassPattern::parse(class).unwrap());
    scope.classifications.extend(classes);
    let needs = Needs {
        members: Some(simple.members),
        alone: simple
            .alone
            .into_iter()
            .map(|of| slug(slug_of(of)))
            .collect(),
        negative: simple.negative,
        ..Needs::default()
    };
    let mut rules = vec![Rule {
        name: "raise".to_owned(),
        scope,
        action: Action::AtLeast(Enforce, needs),
    }];
    rules.extend(simple.capped_from.map(|negative_members| Rule {
        name: "cap".to_owned(),
        scope: Scope::default(),
        action: Action::AtMost {
            verdict: Observe,
            negative_members,
        },
    }));
    Policy::new(simple.default, rules).unwrap()
}

/// The verdict by the words of the documentation.
fn verdict(simple: &Simple, strong_kind: bool, said: &[(Stands, usize, bool)]) -> Option<Verdict> {
    let capped = |stands: &Stands| simple.capped_from.is_some_and(|n| stands.negatives >= n);
    let about = |class: usize| simple.class.is_none_or(|of| of == class);
    let counted: Vec<_> = said
        .iter()
        .filter(|(stands, class, _)| {
            let disputed = stands.negatives > 0 && simple.negative != Negative::Accept;
            about(*class) && !capped(stands) && !disputed
        })
        .collect();
    let blocked = simple.negative == Negative::Block
        && said
            .iter()
            .any(|(stands, class, _)| about(*class) && stands.negatives > 0);
    let members: BTreeSet<usize> = counted
        .iter()
        .filter(|(_, _, corroborates)| *corroborates && strong_kind)
        .map(|(stands, ..)| stands.set)
        .collect();
    let number = members.len().max(usize::from(!counted.is_empty())) as u64;
    let alone = counted
        .iter()
        .any(|(stands, ..)| simple.alone == Some(stands.set));
    if !counted.is_empty() && !blocked && (alone || number >= simple.members) {
        return Some(Enforce);
    }
    let becomes = |stands: &Stands| {
        let most = if capped(stands) { Observe } else { Enforce };
        most.min(simple.default)
    };
    said.iter().map(|(stands, ..)| becomes(stands)).max()
}

impl Reader {
    fn stands(&self, signal: &Signal) -> Vec<Stands> {
        let found = self.node().lookup(std::slice::from_ref(signal)).unwrap();
        let stands = found[0].iter().map(|found| Stands {
            set: (0..SETS).find(|set| id_of(*set) == found.feed).unwrap(),
            index: found.index,
            negatives: found.opinions.stances.negative,
            positives: found.opinions.stances.positive,
        });
        let mut stands: Vec<Stands> = stands.collect();
        stands.sort();
        stands
    }

    fn verdict(&self, signal: &Signal) -> Option<Verdict> {
        let judge = self.node().judge("", "").unwrap();
        let asked = std::slice::from_ref(signal);
        let matched = self.node().matches(asked, MatchOptions::exact()).unwrap();
        judge.verdict(signal, &matched[0])
    }

    /// That every medium stands, and is judged, as the model says.
    fn agrees(&self, all: &[History], policies: &[Simple], how: &str) {
        for media in 0..MEDIA {
            let model = standing(all, media);
            let stands: Vec<Stands> = model.iter().map(|(stands, ..)| stands.clone()).collect();
            for signal in [sha256_of(media), md5_of(media)] {
                assert_eq!(self.stands(&signal), stands, "{how}: medium {media}");
            }
            for (at, simple) in policies.iter().enumerate() {
                let policy = policy_of(simple);
                let text = [u8::try_from(at).unwrap()];
                self.node().set_policy(Some((policy, &text))).unwrap();
                for (strong, signal) in [(true, sha256_of(media)), (false, md5_of(media))] {
                    let expected = verdict(simple, strong, &model);
                    assert_eq!(self.verdict(&signal), expected, "{how}: {simple:?} {media}");
                }
            }
        }
        let mut findings = self.node().verify(|_, _| {}).unwrap().findings;
        // Nobody here has a card.
        findings.retain(|finding| finding.kind != FindingKind::HeadSignature);
        assert!(findings.is_empty(), "{how}: {findings:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn standing_and_verdict_are_the_models_by_any_way_that_feeds_come(
        ops in prop::collection::vec((0_u8..5, 0_u8..12, 0_u64..30, 0_u64..40), 1..60),
        policies in prop::collection::vec(simple(), 2..4),
        steps in prop::collection::vec((0_usize..5, 1_usize..12, 0_u8..6), 0..30),
        taken in any::<u64>(), cut in 0_usize..30,
    ) {
        let all = histories(&ops);
        // Live: in pieces, in any order between feeds, with restarts.
        let mut live = Reader::new();
        for (feed, count, then) in steps {
            let to = (live.held(feed) + count).min(all[feed].leaves.len());
            live.bring(feed, &all[feed], to, |_| false);
            match then {
                0 => live.restart(),
                1 => live.retire(),
                _ => {}
            }
        }
        for (feed, history) in all.iter().enumerate().rev() {
            live.bring(feed, history, history.leaves.len(), |_| false);
        }
        live.agrees(&all, &policies, "live");
        live.restart();
        live.agrees(&all, &policies, "after a start");
        // Replayed: whole, one after another.
        let mut replayed = Reader::new();
        // Elided: what a head that is asked for makes dead may be left out.
        let mut elided = Reader::new();
        let starts = |at: usize| taken >> (at % 64) & 1 == 1;
        for (feed, history) in all.iter().enumerate() {
            let size = history.leaves.len();
            replayed.bring(feed, history, size, |_| false);
            if starts(feed) {
                replayed.restart();
            }
            for to in [cut.clamp(1, size), size] {
                let dead = dead(&history.says, to);
                let leaves_out = |at: u64| {
                    let kills = matches!(
                        history.says[usize::try_from(at).unwrap()],
                        Says::Kills(_) | Says::Describe
                    );
                    dead.contains(&at) && !kills && taken >> (at % 64) & 1 == 1
                };
                elided.bring(feed, history, to, leaves_out);
                if starts(feed + to) {
                    elided.restart();
                }
            }
        }
        replayed.agrees(&all, &policies, "replayed");
        replayed.retire();
        replayed.agrees(&all, &policies, "with what is dead dropped");
        elided.agrees(&all, &policies, "elided");
        for (mut reader, how) in [(replayed, "replayed"), (elided, "elided")] {
            reader.restart();
            reader.agrees(&all, &policies, &format!("{how}, after a start"));
        }
    }
}
