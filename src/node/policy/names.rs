//! Which names in the rules of a policy mean nothing here.

use std::collections::BTreeSet;

use hashpact_core::policy::Policy;

use crate::node::Node;
use crate::views;

impl Node {
    /// What a policy's rules name and nobody knows here, in words: a slip in a name makes
    /// a rule that never fires. It may come to be known, so nothing is refused for it.
    /// None before there is a roster.
    #[must_use]
    pub fn unknown_policy_names(&self, policy: &Policy) -> Vec<String> {
        let state = self.membership().state();
        let Some(chain) = state.chain.as_ref() else {
            return Vec::new();
        };
        let members = chain.roster().members.iter().map(|m| m.slug.clone());
        let feeds = self.store().feeds();
        let sets: BTreeSet<_> = feeds
            .iter()
            .filter_map(|feed| Some(views::describe_of(feed)?.name))
            .collect();
        let unknown = policy.unknown_names(&members.collect(), &sets);
        unknown.iter().map(ToString::to_string).collect()
    }
}
