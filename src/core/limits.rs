//! Every bound on what comes from outside, in one place, each with its reason.
//!
//! A bound is checked before anything is decoded or allocated from the bytes it
//! bounds.

/// A leaf's payload. A page of 256 such leaves is 2 MiB, within a chunk.
pub const LEAF_PAYLOAD_MAX_BYTES: usize = 8_000;
/// Leaves in a page: the fixed unit of storage, aligned.
pub const PAGE_LEAVES: u64 = 256;
/// A page in plain form: 256 leaves of the longest payload, a kind byte and a
/// length of two bytes each.
pub const PAGE_PLAIN_MAX_BYTES: usize = 256 * (LEAF_PAYLOAD_MAX_BYTES + 3);
/// A chunk, decompressed: one page of the longest leaves and ragged ends fit.
pub const CHUNK_PLAIN_MAX_BYTES: usize = 3 * 1024 * 1024;
/// What a server aims at for a chunk as stored, so that a cut costs little.
pub const CHUNK_TARGET_BYTES: usize = 1024 * 1024;
/// Leaves in a chunk, which bounds the work that one message can ask for: a leaf
/// of 1 KiB of chunk has at least 16 bytes of salt.
pub const CHUNK_MAX_LEAVES: u64 = 65_536;
/// A gRPC message in either direction: a chunk that does not compress, with proofs.
pub const MESSAGE_MAX_BYTES: usize = 4 * 1024 * 1024;
/// A signed note without cosignatures.
pub const NOTE_MAX_BYTES: usize = 4 * 1024;
/// Cosignatures beside one note: more witnesses than any coalition has.
pub const COSIGNATURES_MAX: usize = 1_024;
/// Receipts beside one note in an announcement.
pub const RECEIPTS_MAX: usize = 1_024;
/// A roster's envelope.
pub const ROSTER_MAX_BYTES: usize = 1024 * 1024;
/// A roster file: years of rosters and a thousand cards.
pub const ROSTER_FILE_MAX_BYTES: usize = 64 * 1024 * 1024;
/// A node card's envelope.
pub const CARD_MAX_BYTES: usize = 16 * 1024;
/// A suspension's or a receipt's envelope.
pub const SMALL_DOCUMENT_MAX_BYTES: usize = 4 * 1024;
/// An enrolment request's envelope: a card and a little.
pub const REQUEST_MAX_BYTES: usize = 2 * CARD_MAX_BYTES;
/// Enrolment requests in one draft of a roster.
pub const DRAFT_REQUESTS_MAX: usize = 256;
/// A draft of a roster with its enrolment requests and their framing.
pub const DRAFT_MAX_BYTES: usize =
    ROSTER_MAX_BYTES + DRAFT_REQUESTS_MAX * (REQUEST_MAX_BYTES + 8) + 16;
/// Signatures in one envelope: administrators, or all keys of a card.
pub const ENVELOPE_SIGNATURES_MAX: usize = 256;
/// Leaves in a feed: 2^40, so that sums of sizes never overflow.
pub const FEED_MAX_LEAVES: u64 = 1 << 40;
/// Clock difference that is tolerated between members: ± 300 s.
pub const CLOCK_SKEW_MS: u64 = 300_000;
/// The longest life of a node card.
pub const CARD_LIFE_MAX_MS: u64 = 400 * DAY_MS;
/// The shortest life of a roster.
pub const ROSTER_LIFE_MIN_MS: u64 = 30 * DAY_MS;
/// The longest life of a roster.
pub const ROSTER_LIFE_MAX_MS: u64 = 400 * DAY_MS;
/// How long after a roster's expiry its active members' publish leaves are taken.
pub const ROSTER_GRACE_MS: u64 = 14 * DAY_MS;
/// The longest suspension by one administrator.
pub const SUSPENSION_MAX_MS: u64 = 7 * DAY_MS;
/// One day.
pub const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// Publish leaves that a feed may grow by in an hour after its first pull.
pub const FEED_GROWTH_PER_HOUR: u64 = 2_000_000;
/// How many hours' growth is stored at once before a feed rests: what is above one is
/// in quarantine. Four bound what a publisher can take of a disk to some 2 GB.
pub const FEED_GROWTH_CAP_FACTOR: u64 = 4;
/// Entries that may be retracted in 24 hours without the identity key, as the
/// larger of this and one per cent of the set.
pub const RETRACT_FREE_PER_DAY: u64 = 100;
/// Readers that a set may lose in 24 hours without the identity key, as the larger of
/// this and one in [`GRANT_ENDS_FREE_SHARE`].
pub const GRANT_ENDS_FREE_PER_DAY: usize = 1;
/// See [`GRANT_ENDS_FREE_PER_DAY`].
pub const GRANT_ENDS_FREE_SHARE: usize = 10;
/// Administrators: with those of two versions and a few strangers, their
/// signatures fit an envelope.
pub const ADMINS_MAX: usize = 100;
/// Members that a roster ever lists; some 200 bytes each fit its envelope.
pub const MEMBERS_MAX: usize = 4_096;
/// Chains that one takes the place of: each is a catastrophe.
pub const FORMER_GENESES_MAX: usize = 16;
/// Groups in a roster.
pub const GROUPS_MAX: usize = 256;
/// Revocations in a roster; they stay for ever.
pub const REVOCATIONS_MAX: usize = 1_024;
/// Identity keys that a member had before.
pub const FORMER_KEYS_MAX: usize = 64;
/// A name for people: display names, titles of contacts.
pub const NAME_MAX_BYTES: usize = 200;
/// A reason in words.
pub const REASON_MAX_BYTES: usize = 500;
/// Nodes on a card.
pub const CARD_NODES_MAX: usize = 16;
/// TLS keys of a node: in use, next, and room for a change of algorithm.
pub const NODE_TLS_KEYS_MAX: usize = 4;
/// Keys of one other purpose, and endpoints, of a node.
pub const NODE_KEYS_MAX: usize = 16;
/// Sets that one feed key is limited to.
pub const FEED_KEY_SETS_MAX: usize = 256;
/// Cards that are kept of one member under one identity key: a new one every
/// week for 20 years.
pub const CARDS_KEPT_MAX: usize = 1_024;
/// Node cards in one piece of evidence: those of the two keys' nodes, with room for
/// keys that moved between nodes.
pub const EVIDENCE_CARDS_MAX: usize = 8;
/// Evidence: two notes, two compact ranges, its node cards, and their framing.
pub const EVIDENCE_MAX_BYTES: usize =
    2 * NOTE_MAX_BYTES + EVIDENCE_CARDS_MAX * (CARD_MAX_BYTES + 8) + 8 * 1024;
/// Rosters in a proof: one a day for ten years.
pub const PROOF_ROSTERS_MAX: usize = 4_096;
/// Leaves in a proof that withdraw or replace what it is about: one shows that it is so,
/// and a publisher can write as many as it likes.
pub const PROOF_NAMED_BY_MAX: usize = 16;
/// A proof, or a file of evidence: as much of rosters and cards as a roster file.
pub const PROOF_MAX_BYTES: usize = ROSTER_FILE_MAX_BYTES;
