//! Sentences about policies.

use super::*;
use crate::id::{MemberNumber, SetName, UnixMillis};
use crate::leaf::Basis;
use crate::signal::SignalKind;

pub(super) const DAY: u64 = 86_400_000;
const NOW: UnixMillis = UnixMillis(100 * DAY);
pub(super) const SETS: [&str; 4] = ["amber/one", "amber/two", "birch/one", "cedar/one"];
pub(super) const CLASSES: [&str; 3] = ["tc:A1", "tc:B2", ""];

/// A voice as a test writes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    pub(super) set: usize,
    pub(super) class: usize,
    pub(super) basis: Basis,
    pub(super) age_days: u64,
    pub(super) negatives: u64,
    pub(super) witnessed: Witnessed,
    pub(super) ceiling: Verdict,
    pub(super) share: u16,
}

const PLAIN: Said = Said {
    set: 0,
    class: 0,
    basis: Basis::Human,
    age_days: 10,
    negatives: 0,
    witnessed: Witnessed::Unknown,
    ceiling: Verdict::Enforce,
    share: 0,
};

fn from(set: usize) -> Said {
    Said { set, ..PLAIN }
}

pub(super) fn names() -> Vec<SetName> {
    SETS.map(|set| SetName::parse(set).unwrap()).to_vec()
}

pub(super) fn member(set: usize) -> MemberNumber {
    MemberNumber::new([1, 1, 2, 3][set]).unwrap()
}

pub(super) fn voices<'n>(names: &'n [SetName], said: &[Said]) -> Vec<Voice<'n>> {
    said.iter()
        .map(|said| Voice {
            member: member(said.set),
            set: &names[said.set],
            classification: CLASSES[said.class],
            basis: said.basis,
            published: UnixMillis(NOW.0 - said.age_days * DAY),
            negatives: said.negatives,
            witnessed: said.witnessed,
            ceiling: said.ceiling,
            share: said.share,
        })
        .collect()
}

pub(super) fn question(kind: SignalKind) -> Question<'static> {
    Question {
        kind,
        surface: None,
        region: None,
        now: NOW,
    }
}

pub(super) fn ask(policy: &Policy, kind: SignalKind, said: &[Said]) -> Option<Verdict> {
    let names = names();
    let voices = voices(&names, said);
    let quick = policy.verdict(&question(kind), &voices);
    assert_eq!(
        quick,
        policy.evaluate(&question(kind), &voices).verdict,
        "both ways are one"
    );
    quick
}

fn rule(verdict: Verdict, needs: Needs) -> Rule {
    Rule {
        name: "a-rule".to_owned(),
        scope: Scope::default(),
        action: Action::AtLeast(verdict, needs),
    }
}

fn cap(verdict: Verdict) -> Rule {
    Rule {
        name: "a-cap".to_owned(),
        scope: Scope::default(),
        action: Action::AtMost {
            verdict,
            negative_members: 0,
        },
    }
}

fn policy(rules: Vec<Rule>) -> Policy {
    Policy::new(Verdict::Review, rules).unwrap()
}

fn two() -> Needs {
    Needs {
        members: Some(2),
        ..Needs::default()
    }
}

use SignalKind::{Md5, Pdq, Sha1, Sha256};
use Verdict::{Enforce, Ignore, Observe, Review};

#[test]
fn as_shipped_everything_is_reviewed_and_nothing_is_made_of_nothing() {
    let shipped = Policy::default();
    assert_eq!(ask(&shipped, Pdq, &[]), None);
    assert_eq!(ask(&shipped, Pdq, &[from(0), from(2)]), Some(Review));
    let muted = Said {
        ceiling: Observe,
        ..PLAIN
    };
    assert_eq!(ask(&shipped, Pdq, &[muted]), Some(Observe));
    assert_eq!(ask(&shipped, Pdq, &[muted, from(2)]), Some(Review));
}

#[test]
fn two_members_are_two_whatever_the_number_of_their_sets() {
    let policy = policy(vec![rule(Enforce, two())]);
    assert_eq!(ask(&policy, Pdq, &[from(0)]), Some(Review));
    assert_eq!(ask(&policy, Pdq, &[from(0), from(1)]), Some(Review));
    assert_eq!(ask(&policy, Pdq, &[from(0), from(2)]), Some(Enforce));
}

#[test]
fn md5_sha1_and_what_is_inherited_corroborate_nothing() {
    let policy = policy(vec![rule(Enforce, two())]);
    let both = [from(0), from(2)];
    for (kind, verdict) in [(Md5, Review), (Sha1, Review), (Sha256, Enforce)] {
        assert_eq!(ask(&policy, kind, &both), Some(verdict), "{kind:?}");
    }
    let inherited = Said {
        basis: Basis::Inherited,
        ..from(2)
    };
    assert_eq!(ask(&policy, Sha256, &[from(0), inherited]), Some(Review));
    // A rule that asks for one voice is content with any.
    let one = super::tests::policy(vec![rule(Enforce, Needs::default())]);
    assert_eq!(ask(&one, Md5, &[from(0)]), Some(Enforce));
    assert_eq!(ask(&one, Sha256, &[inherited]), Some(Enforce));
}

#[test]
fn a_member_that_suffices_alone_needs_nobody_else() {
    let mut needs = Needs {
        members: None,
        ..Needs::default()
    };
    needs.alone.insert(Slug::parse("birch").unwrap());
    let alone = policy(vec![rule(Enforce, needs.clone())]);
    assert_eq!(ask(&alone, Md5, &[from(2)]), Some(Enforce));
    assert_eq!(ask(&alone, Pdq, &[from(0), from(3)]), Some(Review));
    needs.members = Some(2);
    let either = policy(vec![rule(Enforce, needs)]);
    assert_eq!(ask(&either, Pdq, &[from(0), from(3)]), Some(Enforce));
}

#[test]
fn what_is_in_doubt_is_not_enforced_and_corroborates_nobody() {
    let policy = policy(vec![rule(Enforce, two())]);
    let doubted = Said {
        ceiling: Review,
        ..from(2)
    };
    assert_eq!(ask(&policy, Pdq, &[from(0), doubted]), Some(Review));
    let one = super::tests::policy(vec![rule(Enforce, Needs::default())]);
    assert_eq!(ask(&one, Pdq, &[doubted]), Some(Review));
}

#[test]
fn a_negative_opinion_blocks_discounts_or_is_accepted() {
    let disputed = Said {
        negatives: 1,
        ..from(0)
    };
    let with = |negative, negative_members| {
        policy(vec![rule(
            Enforce,
            Needs {
                negative,
                negative_members,
                ..Needs::default()
            },
        )])
    };
    let both = [disputed, from(2)];
    assert_eq!(ask(&with(Negative::Block, 1), Pdq, &both), Some(Review));
    assert_eq!(ask(&with(Negative::Block, 2), Pdq, &both), Some(Enforce));
    assert_eq!(ask(&with(Negative::Discount, 1), Pdq, &both), Some(Enforce));
    let alone = [disputed];
    assert_eq!(ask(&with(Negative::Discount, 1), Pdq, &alone), Some(Review));
    assert_eq!(ask(&with(Negative::Accept, 1), Pdq, &alone), Some(Enforce));
}

#[test]
fn witnesses_age_and_share_are_each_asked_for() {
    let needs = Needs {
        witnesses: true,
        min_age_ms: 2 * DAY,
        rollout: 5_000,
        ..Needs::default()
    };
    let policy = policy(vec![rule(Enforce, needs)]);
    assert!(policy.needs_witnesses() && policy.needs_shares());
    let good = Said {
        witnessed: Witnessed::Yes,
        age_days: 2,
        share: 4_999,
        ..PLAIN
    };
    let left_out = |said: Said| {
        let names = names();
        let evaluation = policy.evaluate(&question(Pdq), &voices(&names, &[said]));
        assert_eq!(evaluation.verdict, Some(Review));
        evaluation.rules[0].left_out[0].1
    };
    assert_eq!(ask(&policy, Pdq, &[good]), Some(Enforce));
    for witnessed in [Witnessed::No, Witnessed::Unknown] {
        let said = Said { witnessed, ..good };
        assert_eq!(left_out(said), LeftOut::NotWitnessed);
    }
    let young = Said {
        age_days: 1,
        ..good
    };
    assert_eq!(left_out(young), LeftOut::TooYoung);
    let outside = Said {
        share: 5_000,
        ..good
    };
    assert_eq!(left_out(outside), LeftOut::NotInShare);
}

#[test]
fn an_entry_of_tomorrow_is_not_old() {
    let policy = policy(vec![rule(
        Enforce,
        Needs {
            min_age_ms: 1,
            ..Needs::default()
        },
    )]);
    let names = names();
    let mut said = voices(&names, &[PLAIN]);
    said[0].published = UnixMillis(NOW.0 + 5 * DAY);
    assert_eq!(policy.verdict(&question(Pdq), &said), Some(Review));
}

#[test]
fn a_rule_is_about_its_scope_alone() {
    let mut about = rule(Enforce, Needs::default());
    about.scope.kinds.insert(Pdq);
    about.scope.add([SetPattern::parse("amber/*").unwrap()]);
    let class = ClassPattern::parse("tc:*").unwrap();
    about.scope.classifications.insert(class);
    about.scope.surfaces.insert(Word::parse("Upload").unwrap());
    let policy = policy(vec![about]);
    let ask = |kind, surface: Option<&str>, said| {
        let word = surface.map(|text| Word::parse(text).unwrap());
        let question = Question {
            surface: word.as_ref(),
            ..question(kind)
        };
        let names = names();
        policy.verdict(&question, &voices(&names, &[said])).unwrap()
    };
    assert_eq!(ask(Pdq, Some("upload"), from(1)), Enforce);
    assert_eq!(ask(Sha256, Some("upload"), from(1)), Review);
    assert_eq!(ask(Pdq, Some("chat"), from(1)), Review);
    assert_eq!(ask(Pdq, None, from(1)), Review);
    assert_eq!(ask(Pdq, Some("upload"), from(2)), Review);
    let unclassified = Said { class: 2, ..PLAIN };
    assert_eq!(ask(Pdq, Some("upload"), unclassified), Review);
}

#[test]
fn a_cap_takes_away_what_it_is_about_and_leaves_the_rest() {
    let mut away = cap(Ignore);
    away.scope
        .classifications
        .insert(ClassPattern::parse("tc:B2").unwrap());
    let policy = policy(vec![rule(Enforce, two()), away]);
    let other = Said {
        class: 1,
        ..from(2)
    };
    assert_eq!(ask(&policy, Pdq, &[other]), Some(Ignore));
    // What is capped supports nobody.
    assert_eq!(ask(&policy, Pdq, &[from(0), other]), Some(Review));
    assert_eq!(ask(&policy, Pdq, &[from(0), from(3), other]), Some(Enforce));
}

#[test]
fn a_cap_can_wait_for_so_many_negative_opinions() {
    let policy = policy(vec![Rule {
        action: Action::AtMost {
            verdict: Observe,
            negative_members: 2,
        },
        ..cap(Observe)
    }]);
    let said = |negatives| Said { negatives, ..PLAIN };
    assert_eq!(ask(&policy, Pdq, &[said(1)]), Some(Review));
    assert_eq!(ask(&policy, Pdq, &[said(2)]), Some(Observe));
}

#[test]
fn what_is_no_policy_is_refused() {
    let refused = |default, rules| Policy::new(default, rules).unwrap_err();
    assert_eq!(refused(Enforce, vec![]), (None, PolicyError::EnforcesAll));
    let of = |rule: Rule| refused(Review, vec![rule]);
    assert_eq!(of(cap(Enforce)), (Some(0), PolicyError::Nothing));
    let nothing = rule(Ignore, Needs::default());
    assert_eq!(of(nothing), (Some(0), PolicyError::Nothing));
    let nobody = Needs {
        members: None,
        ..Needs::default()
    };
    assert_eq!(of(rule(Enforce, nobody)), (Some(0), PolicyError::NoMember));
    let no_share = Needs {
        rollout: 0,
        ..Needs::default()
    };
    assert_eq!(of(rule(Enforce, no_share)), (Some(0), PolicyError::NoShare));
    let named = Rule {
        name: "Not a name".to_owned(),
        ..cap(Review)
    };
    assert_eq!(of(named), (Some(0), PolicyError::Name));
    let twice = refused(Review, vec![cap(Review), cap(Observe)]);
    assert_eq!(twice, (Some(1), PolicyError::SameName));
    for text in ["*", "tc", "tc:", ":A1", "t*:A1"] {
        assert_eq!(ClassPattern::parse(text), Err(PolicyError::Class), "{text}");
    }
    for text in ["amber", "*/one", "/*", "amber/one/two"] {
        assert_eq!(SetPattern::parse(text), Err(PolicyError::Set), "{text}");
    }
    assert_eq!(Word::parse("a b"), Err(PolicyError::Word));
}

#[test]
fn shares_are_stable_spread_evenly_and_another_nodes_are_others() {
    let key = |n: u16| {
        let mut key = [3; 33];
        key[1..3].copy_from_slice(&n.to_be_bytes());
        key
    };
    let salt = Salt::new([7; 32]);
    let inside = |salt: &Salt| {
        (0..4_000)
            .filter(|n| share_of(salt, &key(*n)) < 1_000)
            .count()
    };
    assert!((300..500).contains(&inside(&salt)), "{}", inside(&salt));
    assert_eq!(share_of(&salt, &key(5)), share_of(&salt, &key(5)));
    let other = Salt::new([8; 32]);
    let same = (0..100).filter(|n| share_of(&salt, &key(*n)) == share_of(&other, &key(*n)));
    assert!(same.count() < 10);
    assert_eq!(format!("{salt:?}"), "Salt(…)");
}
