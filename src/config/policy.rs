//! The policy's file: TOML, read whole or refused whole.
//!
//! Owns the keys and their spelling; what rules mean is the core's. As with the
//! configuration, an unknown key is refused and every problem is reported at once, with
//! its line and what to do. `docs/POLICY.md` explains every key.

use std::collections::BTreeSet;
use std::path::Path;

use hashpact_core::id::Slug;
use hashpact_core::policy::{
    Action, ClassPattern, MEMBERS_MAX, Needs, Negative, Policy, PolicyError, Rule, SHARES, Scope,
    SetPattern, Verdict, Word,
};
use hashpact_core::signal::SignalKind;
use hashpact_node::policy::TEXT_MAX_BYTES;
use toml::de::DeTable;

use super::reader::{Reading, Section};
use super::{ConfigError, ConfigProblem};

/// The longest age that a rule may ask for.
const AGE_MAX_H: u64 = 100 * 365 * 24;
const HOUR_MS: u64 = 3_600_000;
const VERDICT_FIX: &str = "write \"enforce\", \"review\", \"observe\" or \"ignore\"";
const NAME_FIX: &str = "name the rule in small letters, digits and -, such as \"two-members\"";
/// Keys that say when a rule that raises fires.
const NEEDS: [&str; 6] = [
    "members",
    "alone",
    "witnesses",
    "min_age_h",
    "negative",
    "rollout_percent",
];

/// Reads the file at `path`; answers the policy and its text.
///
/// # Errors
/// Every problem that there is.
pub fn load(path: &Path) -> Result<(Policy, Vec<u8>), ConfigError> {
    let fail = |problems| ConfigError {
        path: path.to_owned(),
        problems,
    };
    let whole = |what: String, fix: &str| {
        fail(vec![ConfigProblem {
            key: String::new(),
            line: None,
            what,
            fix: fix.to_owned(),
        }])
    };
    let text = read(path).map_err(|error| {
        let fix = "put the file there, or name another as policy.file";
        whole(format!("the file cannot be read: {error}"), fix)
    })?;
    let Some(text) = text else {
        let what = format!("the file has more than {TEXT_MAX_BYTES} bytes");
        return Err(whole(what, "join rules that are about the same"));
    };
    let read = std::str::from_utf8(&text)
        .map_err(|_| whole("the file is no UTF-8".to_owned(), "write it as UTF-8"))
        .and_then(|text| parse(text).map_err(fail));
    read.map(|policy| (policy, text))
}

/// The bytes of a file; `None` for more than a policy has.
fn read(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    use std::io::Read as _;
    let most = u64::try_from(TEXT_MAX_BYTES).unwrap_or(u64::MAX);
    let mut text = Vec::new();
    std::fs::File::open(path)?
        .take(most.saturating_add(1))
        .read_to_end(&mut text)?;
    Ok((text.len() <= TEXT_MAX_BYTES).then_some(text))
}

/// Reads a policy from its text.
///
/// # Errors
/// Every problem that there is; with broken TOML, those of the TOML alone.
pub fn parse(text: &str) -> Result<Policy, Vec<ConfigProblem>> {
    let reading = Reading::new(text, Path::new("."));
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().map(|span| span.start);
        reading.problem("", at, error.message(), "correct the TOML");
    }
    let policy = errors.is_empty().then(|| {
        let root = Section::root(&reading, table.get_ref());
        policy(root)
    });
    match (policy.flatten(), reading.into_problems()) {
        (Some(policy), problems) if problems.is_empty() => Ok(policy),
        (_, problems) => Err(problems),
    }
}

fn policy(root: Section<'_, '_>) -> Option<Policy> {
    let default = root.parsed_or("default", Verdict::Review, Verdict::parse, VERDICT_FIX);
    let mut rules = Vec::new();
    let mut names = BTreeSet::new();
    for section in root.sections("rules") {
        rules.extend(rule(section, &mut names));
    }
    let made = default.map(|default| Policy::new(default, rules));
    let made = made.and_then(|made| match made {
        Ok(policy) => Some(policy),
        Err((_, error @ PolicyError::EnforcesAll)) => {
            root.problem(
                "default",
                error.to_string(),
                "name in a rule what is enforced",
            );
            None
        }
        // What is wrong with one rule was noted at its line.
        Err((Some(_), _)) => None,
        Err((None, error)) => {
            root.problem(
                "rules",
                error.to_string(),
                "join rules that are about the same",
            );
            None
        }
    });
    root.finish();
    made
}

fn rule(section: Section<'_, '_>, names: &mut BTreeSet<String>) -> Option<Rule> {
    let named = |text: &str| match text {
        "" => Err(PolicyError::Name),
        text => Ok(text.to_owned()),
    };
    let name = section.required("name", named, NAME_FIX);
    if let Some(name) = &name
        && !names.insert(name.clone())
    {
        let fix = "give each rule a name of its own";
        section.problem("name", PolicyError::SameName.to_string(), fix);
    }
    let scope = scope(&section);
    let verdict = section.parsed("verdict", Verdict::parse, VERDICT_FIX);
    let at_most = section.parsed("at_most", Verdict::parse, VERDICT_FIX);
    let needs = needs(&section);
    let action = match (section.has("verdict"), section.has("at_most")) {
        (true, false) => verdict.map(|verdict| Action::AtLeast(verdict, needs)),
        (false, true) => {
            for key in NEEDS.into_iter().filter(|key| section.has(key)) {
                let what = "a rule with at_most caps what it is about, whoever says it";
                section.problem(key, what, "remove it, or write verdict in place of at_most");
            }
            let negative_members = if section.has("negative_members") {
                needs.negative_members
            } else {
                0
            };
            at_most.map(|verdict| Action::AtMost {
                verdict,
                negative_members,
            })
        }
        (both, _) => {
            let what = if both {
                "a rule raises or caps, and does not do both"
            } else {
                "the rule does not say what becomes of what it is about"
            };
            let fix = "write verdict = \"…\" to raise, or at_most = \"…\" to cap";
            section.problem("verdict", what, fix);
            None
        }
    };
    let rule = name.zip(action).map(|(name, action)| Rule {
        name,
        scope,
        action,
    });
    if let Some(Err(error)) = rule.as_ref().map(Rule::check) {
        let (key, fix) = remedy(error, &section);
        section.problem(key, error.to_string(), fix);
    }
    section.finish();
    rule
}

/// Which key a rule as a whole is wrong by, and what to do.
fn remedy(error: PolicyError, section: &Section<'_, '_>) -> (&'static str, &'static str) {
    match error {
        PolicyError::Name => ("name", NAME_FIX),
        PolicyError::Nothing if section.has("at_most") => {
            ("at_most", "cap at \"review\", \"observe\" or \"ignore\"")
        }
        PolicyError::Nothing => (
            "verdict",
            "write at_most = \"ignore\" to take something away",
        ),
        PolicyError::NoMember => ("alone", "name a member, or write members = 1"),
        PolicyError::NoShare => ("rollout_percent", "write a whole number from 1 to 100"),
        PolicyError::TooLong
        | PolicyError::Verdict
        | PolicyError::Negative
        | PolicyError::EnforcesAll
        | PolicyError::TooManyRules
        | PolicyError::SameName
        | PolicyError::Set
        | PolicyError::Class
        | PolicyError::Word => ("name", "make two rules of it"),
    }
}

fn scope(section: &Section<'_, '_>) -> Scope {
    let word_fix = "write names of letters, digits, -, _ and ., such as \"upload\"";
    let mut scope = Scope {
        classifications: section
            .list(
                "classifications",
                ClassPattern::parse,
                "write them with their scheme, such as \"tc:A1\" or \"tc:*\"",
            )
            .into_iter()
            .collect(),
        kinds: section
            .list(
                "kinds",
                SignalKind::parse,
                "write kinds of signals, such as \"PDQ\" or \"SHA256\"",
            )
            .into_iter()
            .collect(),
        surfaces: section
            .list("surfaces", Word::parse, word_fix)
            .into_iter()
            .collect(),
        regions: section
            .list("regions", Word::parse, word_fix)
            .into_iter()
            .collect(),
        ..Scope::default()
    };
    scope.add(section.list(
        "sets",
        SetPattern::parse,
        "write member/set, or member/* for all sets of a member",
    ));
    for (key, empty) in [
        ("classifications", scope.classifications.is_empty()),
        ("kinds", scope.kinds.is_empty()),
        ("sets", scope.sets.is_empty() && scope.members.is_empty()),
        ("surfaces", scope.surfaces.is_empty()),
        ("regions", scope.regions.is_empty()),
    ] {
        // ⚠ A list from which all was removed would be about everything.
        if empty && section.is_empty_list(key) {
            let what = "an empty list would be about everything";
            section.problem(key, what, "remove the key where that is meant");
        }
    }
    scope
}

fn needs(section: &Section<'_, '_>) -> Needs {
    let alone: BTreeSet<Slug> = section
        .list("alone", Slug::parse, "write slugs of members")
        .into_iter()
        .collect();
    let asks = section.has("members") || alone.is_empty();
    let members = section.whole("members", 1, 1..=MEMBERS_MAX);
    let percent = section.whole("rollout_percent", 100, 1..=100);
    let share = percent.saturating_mul(u64::from(SHARES) / 100);
    Needs {
        members: asks.then_some(members),
        alone,
        witnesses: section.flag("witnesses", false),
        min_age_ms: section
            .whole("min_age_h", 0, 0..=AGE_MAX_H)
            .saturating_mul(HOUR_MS),
        negative: section
            .parsed_or(
                "negative",
                Negative::Block,
                Negative::parse,
                "write \"block\", \"discount\" or \"accept\"",
            )
            .unwrap_or_default(),
        negative_members: section.whole("negative_members", 1, 1..=MEMBERS_MAX),
        rollout: u16::try_from(share).unwrap_or(SHARES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let problems = parse(text).unwrap_err();
        problems.iter().map(ConfigProblem::fact).collect()
    }

    #[test]
    fn an_empty_file_is_the_shipped_policy() {
        assert_eq!(parse("").unwrap(), Policy::default());
    }

    #[test]
    fn a_rule_is_read_with_all_its_keys() {
        let text = "default = \"observe\"\n[[rules]]\nname = \"one\"\nverdict = \"enforce\"\n\
            classifications = [\"tc:A1\", \"x:*\"]\nkinds = [\"pdq\"]\nsets = [\"a/b\", \"c/*\"]\n\
            surfaces = [\"Upload\"]\nregions = [\"EU\"]\nmembers = 2\nalone = [\"a\"]\n\
            witnesses = true\nmin_age_h = 24\nnegative = \"discount\"\nnegative_members = 3\n\
            rollout_percent = 10\n[[rules]]\nname = \"two\"\nat_most = \"ignore\"\n\
            negative_members = 2\n";
        let policy = parse(text).unwrap();
        assert_eq!(policy.default_verdict(), Verdict::Observe);
        let [one, two] = policy.rules() else {
            panic!("{policy:?}")
        };
        assert_eq!(one.scope.set_patterns().count(), 2);
        let Action::AtLeast(Verdict::Enforce, needs) = &one.action else {
            panic!("{one:?}")
        };
        assert_eq!((needs.members, needs.rollout), (Some(2), 1_000));
        assert_eq!(
            (needs.min_age_ms, needs.negative_members),
            (24 * HOUR_MS, 3)
        );
        assert_eq!(needs.negative, Negative::Discount);
        assert!(needs.witnesses && needs.alone.len() == 1);
        assert_eq!(
            two.action,
            Action::AtMost {
                verdict: Verdict::Ignore,
                negative_members: 2
            }
        );
    }

    #[test]
    fn a_member_that_suffices_alone_is_not_asked_to_be_one_of_many() {
        let text = "[[rules]]\nname = \"one\"\nverdict = \"enforce\"\nalone = [\"a\"]\n";
        let policy = parse(text).unwrap();
        let Action::AtLeast(_, needs) = &policy.rules()[0].action else {
            panic!("{policy:?}")
        };
        assert_eq!(needs.members, None);
    }

    #[test]
    fn every_problem_is_told_with_its_line() {
        let text = "default = \"enforce\"\nnew = 1\n[[rules]]\nname = \"One\"\nverdict = \"enforce\"\n\
            sets = [\"nowhere\"]\n[[rules]]\nname = \"two\"\nverdict = \"ignore\"\n[[rules]]\n\
            name = \"two\"\nat_most = \"review\"\nmembers = 2\n[[rules]]\nname = \"four\"\n\
            kinds = []\nverdit = \"enforce\"\nrollout_percent = 0\n";
        let told = problems(text);
        let expected = [
            "line 1: default: nothing is enforced unless",
            "line 2: new: there is no such key",
            "line 4: rules[0].name: a rule's name has",
            "line 6: rules[0].sets: a set is written",
            "line 9: rules[1].verdict: everything is at least",
            "line 11: rules[2].name: another rule has this name",
            "line 13: rules[2].members: a rule with at_most caps",
            "line 16: rules[3].kinds: an empty list would be",
            "line 17: rules[3].verdit: there is no such key",
            "line 18: rules[3].rollout_percent: 0 is out of range",
            "rules[3].verdict: the rule does not say",
        ];
        assert_eq!(told.len(), expected.len(), "{told:#?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.starts_with(expected), "{told:?} is not {expected:?}");
        }
    }

    #[test]
    fn broken_toml_and_a_file_that_is_not_there_are_told() {
        assert!(problems("[[rules]\n")[0].starts_with("line 1"));
        let error = load(Path::new("/nowhere/policy.toml")).unwrap_err();
        assert!(error.to_string().contains("cannot be read"), "{error}");
    }
}
