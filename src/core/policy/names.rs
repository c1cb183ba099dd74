//! Which members and sets the rules of a policy name that nobody knows: a slip in such a
//! word makes a rule that never fires, and it is well written all the same.

use std::collections::BTreeSet;
use std::fmt;

use super::{Action, Policy, Rule};
use crate::id::{SetName, Slug};

/// A name in a rule that means nothing on this node at present. It may come to mean
/// something, so it is told and never refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnknownName {
    /// The rule's name.
    pub rule: String,
    /// What it names.
    pub of: Unknown,
}

/// What nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unknown {
    /// No member is called so.
    Member(Slug),
    /// No set of a known member is held under this name.
    Set(SetName),
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = &self.rule;
        match &self.of {
            Unknown::Member(slug) => {
                write!(f, "rule {rule}: the roster has no member {slug}")
            }
            Unknown::Set(set) => write!(f, "rule {rule}: no set {set} is held here"),
        }
    }
}

impl Policy {
    /// The names in its rules that neither `members` nor `sets` has, in the order of the
    /// rules; of a member that nobody knows the member alone.
    #[must_use]
    pub fn unknown_names(
        &self,
        members: &BTreeSet<Slug>,
        sets: &BTreeSet<SetName>,
    ) -> Vec<UnknownName> {
        let of_rule = |rule: &Rule| {
            let mut unknown = BTreeSet::new();
            let mut member = |slug: &Slug| {
                let known = members.contains(slug);
                if !known {
                    unknown.insert(Unknown::Member(slug.clone()));
                }
                known
            };
            for slug in &rule.scope.members {
                member(slug);
            }
            if let Action::AtLeast(_, needs) = &rule.action {
                for slug in &needs.alone {
                    member(slug);
                }
            }
            let of_members: Vec<&SetName> = rule
                .scope
                .sets
                .iter()
                .filter(|set| member(&set.member))
                .collect();
            let missing = of_members.into_iter().filter(|set| !sets.contains(set));
            unknown.extend(missing.cloned().map(Unknown::Set));
            let name = rule.name.clone();
            unknown.into_iter().map(move |of| UnknownName {
                rule: name.clone(),
                of,
            })
        };
        self.rules().iter().flat_map(of_rule).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Needs, Scope, SetPattern, Verdict};
    use super::*;

    fn slug(text: &str) -> Slug {
        Slug::parse(text).unwrap()
    }

    fn rule(name: &str, sets: &[&str], alone: &[&str]) -> Rule {
        let mut scope = Scope::default();
        scope.add(sets.iter().map(|set| SetPattern::parse(set).unwrap()));
        let action = if alone.is_empty() {
            Action::AtMost {
                verdict: Verdict::Ignore,
                negative_members: 0,
            }
        } else {
            Action::AtLeast(
                Verdict::Enforce,
                Needs {
                    alone: alone.iter().map(|member| slug(member)).collect(),
                    ..Needs::default()
                },
            )
        };
        Rule {
            name: name.to_owned(),
            scope,
            action,
        }
    }

    #[test]
    fn names_that_nobody_knows_are_told_with_their_rule_and_known_ones_are_not() {
        let rules = vec![
            rule(
                "good",
                &["northstar/confirmed", "tidepool/*"],
                &["tidepool"],
            ),
            rule("cap", &["northstr/confirmed", "northstar/confirmd"], &[]),
            rule("alone", &["lumn/*"], &["northstr"]),
        ];
        let policy = Policy::new(Verdict::Review, rules).unwrap();
        let members = ["northstar", "tidepool"].map(slug).into();
        let sets = [SetName::parse("northstar/confirmed").unwrap()].into();
        let said: Vec<String> = policy
            .unknown_names(&members, &sets)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            said,
            [
                "rule cap: the roster has no member northstr",
                "rule cap: no set northstar/confirmd is held here",
                "rule alone: the roster has no member lumn",
                "rule alone: the roster has no member northstr",
            ]
        );
    }
}
