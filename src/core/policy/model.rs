//! Policies against a naive model, and what of them never falls or rises.

use proptest::prelude::*;

use super::tests::{CLASSES, DAY, SETS, Said, ask, member, names, question, voices};
use super::*;
use crate::leaf::Basis;
use crate::signal::SignalKind::{self, Md5, Pdq, Sha1, Sha256};
use Verdict::{Enforce, Ignore, Observe, Review};

fn any_verdict() -> impl Strategy<Value = Verdict> {
    prop::sample::select(Verdict::ALL.to_vec())
}

fn any_said() -> impl Strategy<Value = Said> {
    let witnessed = [Witnessed::Yes, Witnessed::No, Witnessed::Unknown];
    let basis = [Basis::Human, Basis::Automated, Basis::Inherited];
    (
        (0..SETS.len(), 0..CLASSES.len(), 0..4_u64, 0..3_u64),
        prop::sample::select(basis.to_vec()),
        prop::sample::select(witnessed.to_vec()),
        prop_oneof![3 => Just(Enforce), 1 => any_verdict()],
        0..SHARES,
    )
        .prop_map(
            |((set, class, age_days, negatives), basis, witnessed, ceiling, share)| Said {
                set,
                class,
                basis,
                age_days,
                negatives,
                witnessed,
                ceiling,
                share,
            },
        )
}

fn any_scope() -> impl Strategy<Value = Scope> {
    let classes =
        prop::collection::btree_set(prop::sample::select(vec!["tc:A1", "tc:B2", "tc:*"]), 0..2);
    let sets = prop::collection::btree_set(
        prop::sample::select(vec!["amber/one", "amber/*", "birch/*", "cedar/one"]),
        0..3,
    );
    let kinds = prop::collection::btree_set(prop::sample::select(vec![Pdq, Md5, Sha256]), 0..3);
    (classes, sets, kinds).prop_map(|(classes, sets, kinds)| {
        let mut scope = Scope {
            classifications: classes
                .iter()
                .map(|c| ClassPattern::parse(c).unwrap())
                .collect(),
            kinds,
            ..Scope::default()
        };
        scope.add(sets.iter().map(|set| SetPattern::parse(set).unwrap()));
        scope
    })
}

fn any_needs() -> impl Strategy<Value = Needs> {
    (
        prop::option::of(1..4_u64),
        prop::collection::btree_set(prop::sample::select(vec!["amber", "birch"]), 0..2),
        any::<bool>(),
        0..3_u64,
        prop::sample::select(Negative::ALL.to_vec()),
        1..3_u64,
        prop_oneof![2 => Just(SHARES), 1 => 1..SHARES],
    )
        .prop_map(
            |(members, alone, witnesses, days, negative, negative_members, rollout)| Needs {
                members: if alone.is_empty() {
                    Some(members.unwrap_or(1))
                } else {
                    members
                },
                alone: alone
                    .iter()
                    .map(|slug| Slug::parse(slug).unwrap())
                    .collect(),
                witnesses,
                min_age_ms: days * DAY,
                negative,
                negative_members,
                rollout,
            },
        )
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let raising = prop::sample::select(vec![Observe, Review, Enforce]);
    let raising =
        (raising, any_needs()).prop_map(|(verdict, needs)| Action::AtLeast(verdict, needs));
    let capping = (
        prop::sample::select(vec![Ignore, Observe, Review]),
        0..3_u64,
    );
    let capping = capping.prop_map(|(verdict, negative_members)| Action::AtMost {
        verdict,
        negative_members,
    });
    let rule = (any_scope(), prop_oneof![3 => raising, 1 => capping]);
    let default = prop::sample::select(vec![Ignore, Observe, Review]);
    (default, prop::collection::vec(rule, 0..5)).prop_map(|(default, rules)| {
        let rules = rules.into_iter().enumerate();
        let rules = rules.map(|(n, (scope, action))| Rule {
            name: format!("rule-{n}"),
            scope,
            action,
        });
        Policy::new(default, rules.collect()).unwrap()
    })
}

/// The words of the documentation, one voice at a time and without a thought for speed.
fn model(policy: &Policy, kind: SignalKind, said: &[Said]) -> Option<Verdict> {
    let about = |rule: &Rule, said: &Said| {
        let scope = &rule.scope;
        let set = SETS[said.set];
        let mut sets = scope
            .set_patterns()
            .map(|pattern| pattern.to_string())
            .peekable();
        let of_set = sets.peek().is_none()
            || sets.any(|p| p == set || p == format!("{}/*", set.split('/').next().unwrap()));
        let class = CLASSES[said.class];
        let mut classes = scope
            .classifications
            .iter()
            .map(ToString::to_string)
            .peekable();
        let of_class = classes.peek().is_none()
            || classes.any(|c| c == class || (c == "tc:*" && class.starts_with("tc:")));
        of_set && of_class && (scope.kinds.is_empty() || scope.kinds.contains(&kind))
    };
    let ceiling = |said: &Said| {
        let caps = policy.rules().iter().filter_map(|rule| match rule.action {
            Action::AtMost {
                verdict,
                negative_members,
            } if about(rule, said) && said.negatives >= negative_members => Some(verdict),
            Action::AtMost { .. } | Action::AtLeast(..) => None,
        });
        caps.chain([said.ceiling]).min().unwrap()
    };
    let counts = |rule: &Rule, said: &Said| match &rule.action {
        Action::AtMost { .. } => false,
        Action::AtLeast(verdict, needs) => {
            let disputed = said.negatives >= needs.negative_members;
            about(rule, said)
                && ceiling(said) >= *verdict
                && (!disputed || needs.negative == Negative::Accept)
                && said.age_days * DAY >= needs.min_age_ms
                && (!needs.witnesses || said.witnessed == Witnessed::Yes)
                && said.share < needs.rollout
        }
    };
    let fires = |rule: &Rule| match &rule.action {
        Action::AtMost { .. } => false,
        Action::AtLeast(_, needs) => {
            let counted: Vec<&Said> = said.iter().filter(|said| counts(rule, said)).collect();
            let blocked = needs.negative == Negative::Block
                && said
                    .iter()
                    .any(|said| about(rule, said) && said.negatives >= needs.negative_members);
            let strong: std::collections::HashSet<u32> = counted
                .iter()
                .filter(|said| said.basis != Basis::Inherited && !matches!(kind, Md5 | Sha1))
                .map(|said| member(said.set).value())
                .collect();
            let number = strong.len().max(usize::from(!counted.is_empty()));
            let slug = |said: &Said| SETS[said.set].split('/').next().unwrap();
            let alone = counted
                .iter()
                .any(|said| needs.alone.iter().any(|one| one.as_str() == slug(said)));
            !blocked && (alone || needs.members.is_some_and(|need| number as u64 >= need))
        }
    };
    said.iter()
        .map(|said| {
            let raised = policy.rules().iter().filter_map(|rule| match &rule.action {
                Action::AtLeast(verdict, _) if fires(rule) && counts(rule, said) => Some(*verdict),
                Action::AtMost { .. } | Action::AtLeast(..) => None,
            });
            raised
                .max()
                .unwrap_or(Ignore)
                .max(policy.default_verdict().min(ceiling(said)))
        })
        .max()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]

    #[test]
    fn a_verdict_is_that_of_the_naive_model(
        policy in any_policy(),
        said in prop::collection::vec(any_said(), 0..6),
        kind in prop::sample::select(vec![Pdq, Md5, Sha1, Sha256]),
    ) {
        prop_assert_eq!(ask(&policy, kind, &said), model(&policy, kind, &said));
    }

    #[test]
    fn no_order_counts_and_no_verdict_is_above_what_a_voice_may_become(
        policy in any_policy(),
        said in prop::collection::vec(any_said(), 1..6),
    ) {
        let mut turned = said.clone();
        turned.reverse();
        prop_assert_eq!(ask(&policy, Pdq, &said), ask(&policy, Pdq, &turned));
        let names = names();
        let evaluation = policy.evaluate(&question(Pdq), &voices(&names, &said));
        for ((verdict, ceiling), said) in evaluation.voices.iter().zip(&evaluation.ceilings).zip(&said) {
            prop_assert!(verdict <= ceiling && *ceiling <= said.ceiling);
        }
        let most = said.iter().map(|said| said.ceiling).max();
        prop_assert!(evaluation.verdict <= most);
    }

    #[test]
    fn a_voice_more_that_nobody_disputes_lowers_nothing(
        policy in any_policy(),
        said in prop::collection::vec(any_said(), 0..5),
        more in any_said(),
    ) {
        let before = ask(&policy, Pdq, &said);
        let mut all = said;
        all.push(Said { negatives: 0, ..more });
        prop_assert!(before <= ask(&policy, Pdq, &all));
    }

    #[test]
    fn a_lower_ceiling_a_dispute_and_less_age_raise_nothing(
        policy in any_policy(),
        said in prop::collection::vec(any_said(), 1..5),
        which in any::<prop::sample::Index>(),
        ceiling in any_verdict(),
        negatives in 0..3_u64,
    ) {
        let before = ask(&policy, Pdq, &said);
        let mut worse = said;
        let at = which.index(worse.len());
        let one = &mut worse[at];
        one.ceiling = one.ceiling.min(ceiling);
        one.negatives += negatives;
        one.age_days = one.age_days.saturating_sub(1);
        prop_assert!(ask(&policy, Pdq, &worse) <= before);
    }
}
