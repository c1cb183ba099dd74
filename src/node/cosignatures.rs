//! Cosignatures of others: whose they are, and whether they hold.
//!
//! A line counts with a witness key on the card in force of an active member with that
//! role, of the first node there that has any, and if its time is not of the future.

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

/// This node's member as a witness: by whatever key, on whatever card it ever had.
///
/// PROTOCOL 11.13a: what one of its keys cosigned, all of them go by.
#[derive(Debug)]
pub struct OwnWords {
    name: String,
    keys: Vec<PublicKey<Witness>>,
}

impl OwnWords {
    /// Of a node; `None` before it knows its coalition.
    #[must_use]
    pub fn of(node: &Node) -> Option<Self> {
        let (coalition, own) = (node.membership().coalition().ok()?, node.membership().own());
        let state = node.membership().state();
        let cards = own.ok().into_iter();
        let mut keys: Vec<PublicKey<Witness>> = cards
            .flat_map(|own| state.cards.witness_keys_ever(own))
            .copied()
            .collect();
        keys.extend(node.witnessing().map(|witnessing| witnessing.key()));
        keys.sort_unstable();
        keys.dedup();
        Some(Self {
            name: checkpoint::witness_name(&coalition, node.member_slug()),
            keys,
        })
    }

    /// The name that it cosigns under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a line over a checkpoint's body is one of its cosignatures.
    #[must_use]
    pub fn has(&self, body: &str, line: &[u8]) -> bool {
        let mut keys = self.keys.iter();
        keys.any(|key| checkpoint::verify_cosignature(body, line, &self.name, key).is_ok())
    }
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
            card.map_or_else(Vec::new, |card| card.card().witness_keys().to_vec())
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
