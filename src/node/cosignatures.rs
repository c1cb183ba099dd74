//! Cosignatures of others: whose they are, and whether they hold.
//!
//! A line counts with a witness key on the card in force of an active member with that
//! role, and if its time is not of the future.

use std::collections::HashMap;

use hashpact_core::checkpoint;
use hashpact_core::keys::{PublicKey, Witness};
use hashpact_core::limits::CLOCK_SKEW_MS;
use hashpact_core::note::SignatureLine;
use hashpact_core::reject::Rejection;
use hashpact_core::roster::Member;

use crate::node::Node;

/// Whose cosignature a line is, and its time in seconds; nothing is verified.
#[must_use]
pub fn cosigned(line: &[u8]) -> Option<(String, u64)> {
    let line = SignatureLine::parse(line).ok()?;
    let time = line.signature.first_chunk::<8>()?;
    Some((line.name, u64::from_be_bytes(*time)))
}

/// The keys of each witness that counts, by the name that it cosigns under.
#[derive(Debug)]
pub struct WitnessKeys {
    keys: HashMap<String, Vec<PublicKey<Witness>>>,
    latest_s: u64,
}

impl WitnessKeys {
    /// By the roster and the cards in force at this moment.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        let latest_s = node.clock().now().plus(CLOCK_SKEW_MS).0 / 1_000;
        let keys = Self::by_name(node);
        Self { keys, latest_s }
    }

    fn by_name(node: &Node) -> HashMap<String, Vec<PublicKey<Witness>>> {
        let state = node.membership().state();
        let (Some(chain), Some(access)) = (state.chain.as_ref(), node.membership().snapshot())
        else {
            return HashMap::new();
        };
        let (roster, now) = (chain.roster(), node.clock().now());
        let members = roster.members.iter();
        let active = members.filter(|member| access.is_witness(member.number));
        let keys = |member: &Member| {
            let card = state.cards.current(member.number, roster, now);
            let nodes = card.into_iter().flat_map(|card| &card.card().nodes);
            nodes.flat_map(|node| node.witness_keys.clone()).collect()
        };
        active
            .map(|member| {
                let name = checkpoint::witness_name(&roster.coalition, &member.slug);
                (name, keys(member))
            })
            .collect()
    }

    /// Checks a line over a checkpoint's body; answers the name and the time in seconds.
    ///
    /// # Errors
    /// [`Rejection::Unknown`] for no witness, or one without a key;
    /// [`Rejection::FromTheFuture`]; what is wrong with the line.
    pub fn verify(&self, body: &str, line: &[u8]) -> Result<(String, u64), Rejection> {
        let parsed = SignatureLine::parse(line)?;
        let keys = self
            .keys
            .get(&parsed.name)
            .ok_or_else(|| Rejection::Unknown {
                what: "witness",
                why: "no active member with that role has the name".to_owned(),
            })?;
        let checked = keys
            .iter()
            .map(|key| checkpoint::verify_cosignature(body, line, &parsed.name, key));
        let mut refused = Rejection::Unknown {
            what: "witness key",
            why: "the witness's card in force has none".to_owned(),
        };
        for cosignature in checked {
            match cosignature {
                Ok(cosignature) if cosignature.time_s > self.latest_s => {
                    return Err(Rejection::FromTheFuture {
                        what: "cosignature",
                    });
                }
                Ok(cosignature) => return Ok((parsed.name, cosignature.time_s)),
                Err(rejection) => refused = rejection,
            }
        }
        Err(refused)
    }
}
