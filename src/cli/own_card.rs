//! A card of a member whose one node has all the keys on it.

use hashpact_core::card::NodeCard;
use hashpact_core::envelope::Envelope;
use hashpact_core::keys::{Feed, Identity, Receipt, SecretKey};
use hashpact_core::reject::Rejection;

use super::error::CliError;
use super::new_files::key_file;
use super::open::credentials;
use crate::config::Config;
use crate::keyfile;

/// How long a new card holds.
pub(super) const CARD_DAYS: u64 = 365;

/// Signs a card with the identity key and every key of this node. Whether that is all
/// that it names is for its reader to say.
pub(super) fn sign(
    card: &NodeCard,
    config: &Config,
    identity: &SecretKey<Identity>,
) -> Result<Envelope, CliError> {
    let refused = |rejection: Rejection| {
        CliError::failed(format!("the coalition would refuse this card: {rejection}"))
    };
    let keys = &config.keys;
    let feed: SecretKey<Feed> = keyfile::load(&keys.feed).map_err(key_file)?;
    let receipt: SecretKey<Receipt> = keyfile::load(&keys.receipt).map_err(key_file)?;
    let tls = credentials(config)?;
    let mut draft = card.to_envelope().map_err(refused)?;
    draft.sign(identity).sign(&feed).sign(&receipt);
    let possession = tls.sign(&draft.to_sign()).map_err(CliError::failed)?;
    let spki = tls.spki_der().map_err(CliError::failed)?;
    draft.add_tls(&spki, &possession).map_err(refused)?;
    draft.finish().map_err(refused)
}
