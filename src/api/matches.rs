//! Matches in messages: who says what of a signal, and what the node doubts of it.

use std::collections::HashMap;

use hashpact_core::signal::{Signal, SignalKind};
use hashpact_core::standing;
use hashpact_node::model::{Found, Matched};
use hashpact_node::policy::{Doubts, Judge};
use hashpact_node::{MemberView, Node};

use crate::convert::{basis_name, media_name, standing_name};
use crate::{opinions, wire};

/// Writes matches, asking for each publisher once a call.
pub(crate) struct Matches<'a> {
    node: &'a Node,
    publishers: HashMap<u32, wire::Publisher>,
}

impl<'a> Matches<'a> {
    pub(crate) fn new(node: &'a Node) -> Self {
        Self {
            node,
            publishers: HashMap::new(),
        }
    }

    /// Writes what is known of a signal, and what to make of it.
    pub(crate) fn answer(
        &mut self,
        judge: &Judge<'_>,
        signal: &Signal,
        matched: Matched,
    ) -> wire::Answer {
        let verdict = judge.verdict(signal, &matched);
        let mut doubts = judge.doubts(&matched).into_iter();
        let found = matched.found.into_iter();
        wire::Answer {
            matches: found
                .map(|found| wire::Match {
                    doubts: codes(doubts.next().unwrap_or_default()),
                    ..self.write(signal.kind(), found)
                })
                .collect(),
            more: matched.more,
            verdict: verdict.map_or_else(String::new, |verdict| verdict.name().to_owned()),
            ..wire::Answer::default()
        }
    }

    /// The same, with how the signal stands.
    pub(crate) fn matched(
        &mut self,
        judge: &Judge<'_>,
        signal: &Signal,
        matched: Matched,
    ) -> wire::Answer {
        let standings = matched.found.iter().map(|found| found.entry.standing);
        let standing = standing::of_signal(standings).map_or("", standing_name);
        wire::Answer {
            standing: standing.to_owned(),
            ..self.answer(judge, signal, matched)
        }
    }

    fn write(&mut self, kind: SignalKind, found: Found) -> wire::Match {
        let Found {
            entry: found,
            distance,
            video,
            // What it is found by is told to nobody.
            key: _,
        } = found;
        let node = self.node;
        let slug_of = |number| {
            let member = node.member(number);
            member.map_or_else(
                || format!("member {number}"),
                |member| member.slug.to_string(),
            )
        };
        let publisher = self
            .publishers
            .entry(found.publisher.value())
            .or_insert_with(|| match node.member(found.publisher) {
                Some(member) => publisher(member),
                // The roster is gone, the entry is not: its set still says who.
                None => wire::Publisher {
                    slug: found.entry.set.member.to_string(),
                    number: found.publisher.value(),
                    ..wire::Publisher::default()
                },
            });
        wire::Match {
            set: found.entry.set.to_string(),
            entry: found.entry.to_string(),
            index: found.index,
            feed_id: found.feed.as_bytes().to_vec().into(),
            publisher: Some(publisher.clone()),
            opinions: opinions::of_match(found.opinions, slug_of),
            classification: found.classification,
            basis: basis_name(found.basis).to_owned(),
            media_kind: media_name(found.media_kind).to_owned(),
            published_ms: found.published.0,
            quality: found.quality.map(u32::from),
            standing: standing_name(found.standing).to_owned(),
            kind: kind.number(),
            distance,
            query_percent: video.map(|video| u32::from(video.query_percent)),
            compared_percent: video.map(|video| u32::from(video.compared_percent)),
            doubts: Vec::new(),
        }
    }
}

fn publisher(member: MemberView) -> wire::Publisher {
    let contact = member.contact;
    let of = |part: fn(hashpact_core::card::Contact) -> String| {
        contact.clone().map(part).unwrap_or_default()
    };
    wire::Publisher {
        slug: member.slug.to_string(),
        number: member.number.value(),
        display_name: member.display_name,
        contact_name: of(|contact| contact.name),
        contact_email: of(|contact| contact.email),
        contact_phone: of(|contact| contact.phone),
    }
}

/// What the node doubts of a match.
pub(crate) fn codes(doubts: Doubts) -> Vec<String> {
    doubts.codes().map(str::to_owned).collect()
}
