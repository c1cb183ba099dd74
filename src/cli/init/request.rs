//! The enrolment request: the first node card, signed by every key on it.

use hashpact_core::card::{Contact, Endpoint, FeedKey, Node, NodeCard, SetScope};
use hashpact_core::enrol::{EnrolmentRequest, VerifiedRequest};
use hashpact_core::envelope::Envelope;
use hashpact_core::id::UnixMillis;
use hashpact_core::keys::{Feed, Identity, Receipt, SecretKey, Witness};
use hashpact_core::limits::DAY_MS;
use hashpact_core::reject::Rejection;
use hashpact_core::roster::Role;
use hashpact_net::tls::Credentials;
use hashpact_node::card::CARD_DAYS;

use super::InitArgs;
use crate::cli::error::CliError;
use crate::cli::fingerprint::Fingerprint;

/// The keys of a new node.
pub(super) struct NodeKeys<'a> {
    pub(super) identity: &'a SecretKey<Identity>,
    pub(super) feed: &'a SecretKey<Feed>,
    pub(super) receipt: &'a SecretKey<Receipt>,
    pub(super) witness: Option<&'a SecretKey<Witness>>,
    pub(super) tls: &'a Credentials,
}

/// A request that verifies, and what is read out of it.
#[derive(Debug)]
pub(super) struct Request {
    envelope: Envelope,
    pub(super) fingerprint: String,
    pub(super) words: Fingerprint,
}

impl Request {
    pub(super) fn bytes(&self) -> &[u8] {
        self.envelope.as_bytes()
    }
}

/// Makes the request and checks it as an administrator will.
pub(super) fn make(
    args: &InitArgs,
    keys: &NodeKeys<'_>,
    now: UnixMillis,
) -> Result<Request, CliError> {
    let card = card(args, keys, now)?;
    let mut roles: Vec<Role> = args.roles.iter().map(|role| role.role()).collect();
    roles.sort_unstable();
    roles.dedup();
    let request = EnrolmentRequest {
        genesis: args.genesis,
        slug: args.member.clone(),
        display_name: display_name(args),
        organisation_kind: args.organisation.clone(),
        roles,
        identity: keys.identity.public(),
        created: now,
        card,
    };
    let mut draft = request.to_envelope().map_err(refused)?;
    let envelope = draft.sign(keys.identity).finish().map_err(refused)?;
    let verified = VerifiedRequest::verify(envelope.clone(), now).map_err(refused)?;
    Ok(Request {
        envelope,
        fingerprint: verified.fingerprint(),
        words: Fingerprint::of(&verified.digest()),
    })
}

fn card(args: &InitArgs, keys: &NodeKeys<'_>, now: UnixMillis) -> Result<Envelope, CliError> {
    let endpoints = args.advertise.iter();
    let endpoints = endpoints
        .map(|endpoint| Endpoint::parse(&endpoint.to_string()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(refused)?;
    let card = NodeCard {
        genesis: args.genesis,
        member: None,
        slug: args.member.clone(),
        version: 1,
        issued: now,
        expires: now.plus(CARD_DAYS * DAY_MS),
        nodes: vec![Node {
            name: args.node.clone(),
            endpoints,
            tls_keys: vec![keys.tls.key_digest().map_err(CliError::failed)?],
            feed_keys: vec![FeedKey {
                key: keys.feed.public(),
                sets: SetScope::All,
            }],
            witness_keys: keys.witness.map(SecretKey::public).into_iter().collect(),
            receipt_keys: vec![keys.receipt.public()],
        }],
        contact: Contact {
            name: args.contact_name.clone(),
            email: args.contact_email.clone(),
            phone: args.contact_phone.clone(),
        },
    };
    let mut draft = card.to_envelope().map_err(refused)?;
    draft.sign(keys.identity).sign(keys.feed).sign(keys.receipt);
    if let Some(witness) = keys.witness {
        draft.sign(witness);
    }
    let possession = keys.tls.sign(&draft.to_sign()).map_err(CliError::failed)?;
    let spki = keys.tls.spki_der().map_err(CliError::failed)?;
    draft.add_tls(&spki, &possession).map_err(refused)?;
    draft.finish().map_err(refused)
}

fn display_name(args: &InitArgs) -> String {
    let given = args.display_name.clone();
    given.unwrap_or_else(|| args.member.to_string())
}

/// What the coalition would refuse, before anybody is asked.
fn refused(rejection: Rejection) -> CliError {
    CliError::usage(format!("the coalition would refuse this: {rejection}"))
}
