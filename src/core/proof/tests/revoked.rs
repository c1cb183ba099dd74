//! ⚠ Whoever finds a feed key that was revoked can sign heads of the closed epoch with it
//! for ever, below the size at which it was closed: a proof by such a head says so.

use super::*;

/// What a roster revokes: a key, up to this size with this root.
type Said = (PublicKey<Feed>, u64, Digest);

fn own() -> PublicKey<Feed> {
    Keys::of(11).feed.public()
}

fn other() -> PublicKey<Feed> {
    SecretKey::<Feed>::from_seed(&[77; 32]).public()
}

/// The coalition, with a roster for each revocation: version 4 and on.
fn revoking(all: &[Said]) -> RosterChain {
    let mut chain = coalition();
    let (feed, _) = leaves(&chain);
    for (key, size, root) in all {
        let revoke = change(&mut chain, |roster| {
            roster.revoke_feed_key(feed, *key, *size, *root);
        });
        revoke.unwrap();
    }
    chain
}

/// The whole sample, by a head of epoch 0, under these rosters.
fn under(all: &[Said]) -> (Digest, Proof) {
    let (_, mut proof) = super::sample();
    let chain = revoking(all);
    proof.roster_version = chain.version();
    let rosters = chain.from_version(1);
    proof.rosters = rosters.map(|one| one.as_bytes().clone()).collect();
    (chain.genesis(), proof)
}

fn doubt(all: &[Said]) -> (Option<u64>, Option<u64>) {
    let (genesis, proof) = under(all);
    let file = Bytes::from(proof.encode().unwrap());
    let read = Proof::decode(&file).unwrap();
    let doubt = read.verify(&genesis).unwrap().doubt;
    (doubt.key_revoked_in, doubt.epoch_closed_in)
}

/// A proof by a key that was revoked: the epoch was closed at 20 leaves.
pub(crate) fn sample() -> Proof {
    under(&[(own(), 20, Digest::of(b"what went on"))]).1
}

#[test]
fn a_proof_by_a_revoked_feed_key_says_which_roster_revoked_it() {
    assert_eq!(doubt(&[]), (None, None));
    let went_on = Digest::of(b"what went on");
    assert_eq!(doubt(&[(own(), 20, went_on)]), (Some(4), Some(4)));
    // Of another key of the member: its owner may have signed it at any time.
    assert_eq!(doubt(&[(other(), 20, went_on)]), (None, Some(4)));
    let both = [(other(), 20, went_on), (own(), 30, went_on)];
    assert_eq!(doubt(&both), (Some(5), Some(4)));
    let twice = [(own(), 20, went_on), (own(), 30, went_on)];
    assert_eq!(doubt(&twice), (Some(4), Some(4)), "the first says it");
}

#[test]
fn the_very_head_with_which_an_epoch_was_closed_is_not_in_doubt() {
    let (_, leaves) = leaves(&coalition());
    let root = range(&leaves).root().unwrap();
    assert_eq!(doubt(&[(own(), SIZE, root)]), (None, None));
}

#[test]
fn a_head_of_the_epoch_that_goes_on_is_not_in_doubt() {
    let (_, leaves) = leaves(&coalition());
    let root = |size: usize| range(&leaves[..size]).root().unwrap();
    let (genesis, mut proof) = under(&[(other(), 8, root(8))]);
    let chain = revoking(&[(other(), 8, root(8))]);
    proof.note = note(&chain, proof.feed, SIZE, root(9)).1;
    proof.cosignatures.clear();
    proof.node_cards.truncate(1);
    let proven = proof.verify(&genesis).unwrap();
    assert_eq!(proven.head.checkpoint.origin.epoch, 1);
    assert_eq!(proven.doubt, Doubt::default());
}
