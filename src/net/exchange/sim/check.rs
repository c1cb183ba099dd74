//! Whether all members ended where they are to end.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hashpact_core::id::Digest;
use hashpact_core::roster::RosterChain;
use hashpact_node::Node;
use hashpact_store::HeadRef;

use super::SimError;
use super::coalition;
use super::script::SimSet;
use super::world::World;

impl World {
    /// What is not as it is to be at the end; nothing when all is.
    pub(crate) fn differences(&self) -> Result<Vec<String>, SimError> {
        let mut wrong = Vec::new();
        let wanted: Vec<Digest> = self.cards.values().copied().collect();
        for (at, member) in self.members.iter().enumerate() {
            let Some(running) = &member.run else {
                continue;
            };
            let node = &running.node;
            let state = node.membership().state();
            let held = state.chain.as_ref().map(|chain| chain.current().digest());
            if held != Some(self.coalition.digest()) {
                let version = state.chain.as_ref().map_or(0, RosterChain::version);
                wrong.push(format!("{} holds roster version {version}", member.slug));
            }
            if self.out.contains(&at) {
                continue;
            }
            if cards(node) != wanted {
                wrong.push(format!("{} holds other cards", member.slug));
            }
            for set in &self.sets {
                if let Some(why) = self.set_differs(at, node, set)? {
                    wrong.push(format!("{}: {why}", member.slug));
                } else if let Some(why) = self.not_receipted(at, set)? {
                    wrong.push(format!("{}: {why}", member.slug));
                }
            }
        }
        Ok(wrong)
    }

    fn set_differs(
        &self,
        at: usize,
        node: &Node,
        set: &SimSet,
    ) -> Result<Option<String>, SimError> {
        let publisher = self.members.get(set.publisher);
        let publisher = publisher.and_then(|member| member.run.as_ref());
        let Some(wanted) = publisher.map(|running| applied(&running.node, set)) else {
            return Ok(None);
        };
        let (wanted, got) = (wanted?, applied(node, set)?);
        let name = &set.name;
        let reads = set.readers.as_ref().is_none_or(|r| r.contains(&at)) || set.publisher == at;
        Ok(match (reads, got) {
            (false, None) => None,
            (false, Some(_)) => Some(format!("holds {name}, which it may not read")),
            (true, got) if got == wanted => self.lacks_quorum(node, set, got)?,
            (true, got) => {
                let size = |head: Option<HeadRef>| head.map_or(0, |head| head.size);
                Some(format!("{name} at {} of {}", size(got), size(wanted)))
            }
        })
    }

    /// Whether the publisher of a set has no receipt of all of it by one that reads it.
    fn not_receipted(&self, at: usize, set: &SimSet) -> Result<Option<String>, SimError> {
        let publisher = self.members.get(set.publisher);
        let publisher = publisher.and_then(|member| member.run.as_ref());
        let reads = set.readers.as_ref().is_none_or(|r| r.contains(&at));
        let (Some(running), Some(member)) = (publisher, self.members.get(at)) else {
            return Ok(None);
        };
        let store = running.node.store();
        let (Some(no), Some(wanted)) = (store.feed_no(&set.feed), applied(&running.node, set)?)
        else {
            return Ok(None);
        };
        if !reads || at == set.publisher {
            return Ok(None);
        }
        let number = coalition::member(member.number)?;
        let kept = store.receipt(no, number, &coalition::node_name()?)?;
        let said = kept.map(|kept| kept.at);
        let size = said.map_or(0, |said| said.size);
        Ok((said != Some(wanted)).then(|| {
            let (name, wanted) = (&set.name, wanted.size);
            format!("its publisher has a receipt of {size} of {wanted} leaves of {name}")
        }))
    }

    /// Where there are witnesses, a quorum of them has cosigned what is held.
    fn lacks_quorum(
        &self,
        node: &Node,
        set: &SimSet,
        held: Option<HeadRef>,
    ) -> Result<Option<String>, SimError> {
        let (Some(held), Some(no)) = (held, node.store().feed_no(&set.feed)) else {
            return Ok(None);
        };
        if !self.coalition.has_witnesses() {
            return Ok(None);
        }
        let feed = node.store().feed(no)?;
        let roster = node.roster_standing();
        let unwitnessed = roster.filter(|roster| !roster.judged.reached(roster.version));
        if let Some(roster) = unwitnessed {
            return Ok(Some(format!(
                "no quorum for the roster at {}",
                roster.version
            )));
        }
        let reached = node.witness_quorum(&feed, held.size)?;
        Ok((!reached).then(|| format!("no quorum for {} at {}", set.name, held.size)))
    }

    /// Recomputes every store from its leaves.
    pub(crate) fn verify_all(&self) -> Result<Vec<String>, SimError> {
        let mut wrong = Vec::new();
        for member in &self.members {
            let Some(running) = &member.run else {
                continue;
            };
            let report = running.node.verify(|_, _| {})?;
            if !report.findings.is_empty() {
                wrong.push(format!("{}: its store does not verify", member.slug));
            }
        }
        Ok(wrong)
    }

    /// What suspended members hold of what was published since.
    pub(crate) fn told_after_suspension(&self) -> Result<Vec<String>, SimError> {
        let mut wrong = Vec::new();
        for at in &self.out {
            let Some(member) = self.members.get(*at) else {
                continue;
            };
            let Some(running) = &member.run else {
                continue;
            };
            for set in &self.sets {
                let theirs = applied(&running.node, set)?.map_or(0, |head| head.size);
                let publisher = self.members.get(set.publisher);
                let publisher = publisher.and_then(|member| member.run.as_ref());
                let newest = publisher.map(|running| applied(&running.node, set));
                let newest = newest.transpose()?.flatten().map_or(0, |head| head.size);
                if theirs >= newest {
                    wrong.push(format!(
                        "{} is suspended and holds all of {}",
                        member.slug, set.name
                    ));
                }
            }
        }
        Ok(wrong)
    }

    /// One digest over what every member holds.
    pub(crate) fn state(&self) -> Result<Digest, SimError> {
        let mut all: BTreeMap<u32, String> = BTreeMap::new();
        for member in &self.members {
            let Some(running) = &member.run else {
                continue;
            };
            let mut text = format!("{:?}", cards(&running.node));
            for set in &self.sets {
                write!(text, "{:?}", applied(&running.node, set)?).map_err(SimError::new)?;
            }
            all.insert(member.number, text);
        }
        Ok(Digest::of(format!("{all:?}").as_bytes()))
    }
}

/// The newest card of every member.
fn cards(node: &Node) -> Vec<Digest> {
    let state = node.membership().state();
    let newest = state.cards.newest_of_all();
    newest.map(|card| card.digest()).collect()
}

fn applied(node: &Node, set: &SimSet) -> Result<Option<HeadRef>, SimError> {
    let store = node.store();
    let Some(no) = store.feed_no(&set.feed) else {
        return Ok(None);
    };
    Ok(store.feed(no)?.applied)
}
