#!/usr/bin/env python3
"""A second implementation of proof and evidence files: Python 3, standard library only.

    verify_proof_file.py FILE GENESIS              says what it shows, or refuses with a reason (exit code 1)
    verify_proof_file.py --self-test FILE GENESIS  changes bytes all over the file and expects each to be refused
    verify_proof_file.py --vectors VECTORS.json    reads tests/vectors/proof.json, and then does the same with it

Written from docs/FORMATS.md and docs/PROTOCOL.md, not from the Rust code. It checks who
signed what: the roster chain's digests and thresholds, each card's identity key and its
proofs of possession, heads, cosignatures, paths, feed ids, forks. It does not check the
rules for names, lifetimes and counts in rosters and cards (5.4, 5.5, 5.8), nor that a
payload obeys section 7.
"""
import functools
import json
import sys

import verify_proofs as base
from verify_proofs import Refused, fields_of, leaf_hash, need, node_hash, sha256

DESCRIBE, PUBLISH, RETRACT, ERASE = 1, 2, 3, 5
WITNESS, ACTIVE = 3, 1


@functools.lru_cache(maxsize=None)
def signed_by(key, message, signature):
    """Whether an Ed25519 key signed."""
    try:
        base.check_ed25519(key, message, signature)
    except (Refused, ValueError):
        return False
    return True


# ECDSA over P-256 (FIPS 186-5), for TLS keys that prove their possession.

Q = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
P256_SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
ED25519_SPKI = bytes.fromhex("302a300506032b6570032100")


def p256_add(a, b):
    if a is None or b is None:
        return a or b
    if a[0] == b[0] and (a[1] + b[1]) % Q == 0:
        return None
    if a == b:
        slope = (3 * a[0] * a[0] - 3) * pow(2 * a[1], -1, Q) % Q
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, Q) % Q
    x = (slope * slope - a[0] - b[0]) % Q
    return x, (slope * (a[0] - x) - a[1]) % Q


def p256_multiply(n, point):
    result = None
    while n:
        if n & 1:
            result = p256_add(result, point)
        point, n = p256_add(point, point), n >> 1
    return result


def der_integers(signature):
    need(len(signature) > 2 and signature[0] == 0x30 and signature[1] == len(signature) - 2, "no DER")
    numbers, at = [], 2
    while at < len(signature):
        need(signature[at] == 2 and at + 2 < len(signature), "no DER")
        end = at + 2 + signature[at + 1]
        part = signature[at + 2 : end]
        need(end <= len(signature) and part and part[0] < 0x80, "no DER")
        need(len(part) == 1 or part[0] or part[1] >= 0x80, "no DER")
        numbers.append(int.from_bytes(part, "big"))
        at = end
    need(len(numbers) == 2, "no DER")
    return numbers


@functools.lru_cache(maxsize=None)
def tls_signed_by(spki, message, signature):
    """Whether a TLS key signed."""
    if spki[: len(ED25519_SPKI)] == ED25519_SPKI:
        return signed_by(spki[len(ED25519_SPKI) :], message, signature)
    try:
        need(len(spki) == 91 and spki.startswith(P256_SPKI), "no TLS key")
        point = int.from_bytes(spki[27:59], "big"), int.from_bytes(spki[59:], "big")
        need((point[1] ** 2 - point[0] ** 3 + 3 * point[0] - B) % Q == 0, "no point")
        r, s = der_integers(signature)
        need(0 < r < N and 0 < s < N, "no signature")
        digest = int.from_bytes(sha256(message), "big")
        inverse = pow(s, -1, N)
        found = p256_add(p256_multiply(digest * inverse % N, G), p256_multiply(r * inverse % N, point))
        return found is not None and found[0] % N == r
    except (Refused, ValueError):
        return False


# Messages (protobuf), as this program needs them.


def one(fields, number, default=b""):
    values = fields.get(number, [default])
    need(len(values) == 1, "a field comes twice")
    need(type(values[0]) is type(default), "a field of another shape")
    return values[0]


def many(fields, number):
    values = fields.get(number, [])
    need(all(isinstance(value, bytes) for value in values), "a field of another shape")
    return values


def digest_of(fields, number):
    value = one(fields, number)
    need(len(value) == 32, "a digest of another length")
    return value


def encode_varint(value):
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(data + bytes([value]))


def spelled(message, known):
    """The fields of a message that has one spelling: known fields in order, none empty but in lists."""
    fields = fields_of(message)
    need(set(fields) <= set(known), "a field that is not known")
    again = b""
    for number in sorted(fields):
        for value in fields[number]:
            need(isinstance(value, int) == (known[number] == "number"), "a field of another shape")
            if isinstance(value, int):
                need(0 < value < 1 << 64, "a number that is not spelled so")
                again += encode_varint(number << 3) + encode_varint(value)
            else:
                need(value or known[number] == "list", "an empty field")
                again += encode_varint(number << 3 | 2) + encode_varint(len(value)) + value
    need(again == message, "it is not spelled as it should be")
    return fields


def packed(data):
    values, at = [], 0
    while at < len(data):
        value, end = base.varint(data, at)
        need(encode_varint(value) == data[at:end], "a number that is not spelled so")
        values.append(value)
        at = end
    return values


def opened(file, kind):
    """The body of a sealed file."""
    first = f"hashpact {kind} 1\n".encode()
    need(file.startswith(first), f"no {kind} file of version 1")
    need(len(file) <= 64 << 20, "too large")
    need(len(file) >= len(first) + 32 and sha256(file[:-32]) == file[-32:], "damaged")
    return file[len(first) : -32]


class Envelope:
    def __init__(self, data, kind):
        fields = fields_of(data)
        need(one(fields, 1) == f"application/vnd.hashpact.{kind}.v1+protobuf".encode(), "another kind of document")
        need(len(many(fields, 3)) <= 256, "too many signatures")
        self.payload = one(fields, 2)
        self.digest = sha256(self.payload)
        kind = one(fields, 1)
        self.signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(self.payload), self.payload)
        self.signatures = []
        for signature in many(fields, 3):
            signature = fields_of(signature)
            self.signatures.append((one(signature, 1, 0), one(signature, 2), one(signature, 3)))

    def has(self, key):
        return any(a == 1 and k == key and signed_by(k, self.signed, s) for a, k, s in self.signatures)

    def has_tls(self, digest):
        return any(a == 2 and sha256(k) == digest and tls_signed_by(k, self.signed, s) for a, k, s in self.signatures)


class Roster:
    def __init__(self, envelope):
        fields = fields_of(envelope.payload)
        self.digest = envelope.digest
        self.genesis, self.coalition = one(fields, 1), one(fields, 2).decode()
        self.version, self.previous = one(fields, 3, 0), one(fields, 4)
        self.issued = one(fields, 5, 0)
        self.admins = {one(fields_of(admin), 2) for admin in many(fields, 7)}
        self.threshold, self.witness_threshold = one(fields, 8, 0), one(fields, 12, 0)
        need(0 < self.threshold <= len(self.admins), "a threshold that nobody meets")
        self.members = {}
        for member in many(fields, 9):
            member = fields_of(member)
            roles = b"".join(r if isinstance(r, bytes) else bytes([r]) for r in member.get(7, []))
            self.members[one(member, 2).decode()] = {
                "number": one(member, 1, 0),
                "active": one(member, 5, 0) == ACTIVE,
                "identities": [one(member, 6)] + many(member, 8)[::-1],
                "former": many(member, 8),
                "witness": WITNESS in roles,
            }
        self.revocations = [fields_of(r) for r in many(fields, 11)]
        self.former = many(fields, 15)

    def approved(self, envelope):
        return sum(envelope.has(key) for key in self.admins) >= self.threshold

    def witnesses(self):
        return {slug for slug, m in self.members.items() if m["witness"] and m["active"]}


def check_chain(rosters, genesis, version):
    """Every version, oldest first."""
    chain = []
    for data in rosters:
        envelope = Envelope(data, "roster")
        roster = Roster(envelope)
        if not chain:
            need(envelope.digest == genesis and roster.version == 1, "another genesis")
            need(not roster.genesis and not roster.previous, "a first version that follows another")
        else:
            check_next(chain, roster, envelope, genesis)
        need(roster.approved(envelope), "too few administrators signed")
        chain.append(roster)
    need(chain and chain[-1].version == version, "the rosters do not end where the file says")
    return chain


def check_next(chain, roster, envelope, genesis):
    before = chain[-1]
    need(roster.genesis == genesis and roster.version == before.version + 1, "not the next version")
    need(roster.previous == before.digest, "another predecessor")
    need(before.approved(envelope), "too few administrators of the version before signed")
    need(roster.coalition == before.coalition, "another coalition")
    need(roster.revocations[: len(before.revocations)] == before.revocations, "a revocation went away")
    for slug, member in before.members.items():
        need(roster.members.get(slug, {}).get("number") == member["number"], "a member went away")


class Card:
    def __init__(self, data, roster, genesis):
        envelope = Envelope(data, "node-card")
        fields = fields_of(envelope.payload)
        need(digest_of(fields, 1) == genesis, "a card of another coalition")
        self.digest, self.slug = envelope.digest, one(fields, 3).decode()
        member = roster.members.get(self.slug)
        need(member, "a card of nobody")
        need(one(fields, 2, 0) in (0, member["number"]), "number and slug do not belong together")
        signers = [key for key in member["identities"] if envelope.has(key)]
        need(signers, "the identity key did not sign the card")
        self.signer = signers[0]
        self.feed_keys, self.witness_keys, self.counted = [], [], []
        for node in many(fields, 7):
            node = fields_of(node)
            for digest in many(node, 3):
                need(envelope.has_tls(digest), "no possession of a TLS key")
            keys = [fields_of(key) for key in many(node, 4)]
            self.feed_keys += [(one(key, 1), many(key, 2)) for key in keys]
            self.witness_keys += many(node, 5)
            self.counted = self.counted or many(node, 5)  # of one node: 11.15a
            for key in [one(key, 1) for key in keys] + many(node, 5) + many(node, 6):
                need(envelope.has(key), "no possession of a key")

    def signs(self, name):
        """The feed keys for a set; all where the set is not known."""
        return [key for key, sets in self.feed_keys if name is None or b"*" in sets or name in sets]

    def keys(self):
        return {key for key, _ in self.feed_keys} | set(self.witness_keys)


def check_cards(cards, roster, genesis):
    read = [Card(card, roster, genesis) for card in cards]
    need(len({card.digest for card in read}) == len(read), "a card comes twice")
    return read


def check_needed(cards, keys):
    """Each card names a key that none before it names. Cards are taken by member, then as they stand."""
    open_keys = set(keys)
    for card in cards:
        need(card.keys() & open_keys, "a card that it does not need")
        open_keys -= card.keys()


def replaced_in(chain, card):
    """The roster that replaced the identity key which signed a card; None for the present one."""
    former = (roster.version for roster in chain if card.signer in roster.members.get(card.slug, {}).get("former", []))
    return next(former, None)


def key_replaced_in(chain, slug, key, cards):
    """The same of the cards of a member that name a key; of one on several cards, the present one says whose it is."""
    named = [replaced_in(chain, card) for card in cards if card.slug == slug and key in card.keys()]
    return None if None in named else min(named)


def replaced(shows, version):
    """Says it where it is so: whoever found the old key could have made the file."""
    return shows | {"identity_replaced_in": version} if version else shows


def doubted(shows, chain, feed, heads):
    """What rosters say of heads (epoch, size, root, key) that verify: that the epoch was closed, or the key revoked,
    but not of the very head with which the epoch was closed."""
    said = {}
    for epoch, size, root, key in heads:
        closings = check_not_void(chain[-1], feed, epoch, size)
        if any((one(r, 3, 0), one(r, 4)) == (size, root) for r in closings):
            continue
        for roster in chain:
            for r in (r for r in roster.revocations if one(r, 1) == feed):
                if one(r, 5, 0) == epoch + 1:
                    said.setdefault("epoch_closed_in", set()).add(roster.version)
                if one(r, 2) == key:
                    said.setdefault("key_revoked_in", set()).add(roster.version)
    return shows | {name: min(versions) for name, versions in said.items()}


def by_member(cards, roster):
    return sorted(cards, key=lambda card: roster.members[card.slug]["number"])


def epoch_of(note):
    return int(note.split("\n", 1)[0].rsplit("/", 1)[1])


def check_head(note, roster, feed, cards, name):
    """Returns (epoch, size, root, key) of a head that is not void."""
    text = note.decode()
    need(len(note) <= 4096 and text.startswith(f"{roster.coalition}/feed/{feed.hex()}/"), "a note of another feed")
    epoch = epoch_of(text)
    revoked = {
        one(r, 2) for r in roster.revocations if one(r, 1) == feed and one(r, 5, 0) <= epoch
    }
    for key in sorted({key for card in cards for key in card.signs(name)} - revoked):
        try:
            size, root = checked_note(text, key)
        except Refused:
            continue
        check_not_void(roster, feed, epoch, size)
        return epoch, size, root, key
    raise Refused("no key of the publisher signed the head")


@functools.lru_cache(maxsize=None)
def checked_note(text, key):
    return base.check_note(text, key)


def check_not_void(roster, feed, epoch, size):
    """Answers what closed the epoch."""
    mine = [r for r in roster.revocations if one(r, 1) == feed]
    need(epoch <= max([one(r, 5, 0) for r in mine], default=0), "an epoch that no roster opened")
    closings = [r for r in mine if one(r, 5, 0) == epoch + 1]
    need(all(size <= one(closing, 3, 0) for closing in closings), "a head that the roster cut off")
    return closings


def check_stands(roster, feed, epoch, size, root):
    for closing in check_not_void(roster, feed, epoch, size):
        named = size < one(closing, 3, 0) or root == one(closing, 4)
        need(named, "a head of another history than the roster names")


def check_inclusion(value, index, size, path, root):
    """RFC 9162 2.1.3.2."""
    need(index < size, "a leaf beyond the head")
    f, s = index, size - 1
    for sibling in path:
        need(s and len(sibling) == 32, "too many hashes")
        if f & 1 or f == s:
            value = node_hash(sibling, value)
            while not f & 1 and f:
                f, s = f >> 1, s >> 1
        else:
            value = node_hash(value, sibling)
        f, s = f >> 1, s >> 1
    need(s == 0, "too few hashes")
    need(value == root, "a leaf that does not lead to the head's root")


class Leaf:
    def __init__(self, data):
        fields = spelled(data, {1: "number", 2: "bytes", 3: "list"})
        self.index, plain, self.path = one(fields, 1, 0), one(fields, 2), many(fields, 3)
        need(plain, "no leaf")
        length, begin = base.varint(plain, 1)
        need(begin == 2 or (begin == 3 and plain[2]), "a length that is not canonical")
        self.kind, rest = plain[0], plain[begin:]
        need(len(rest) == (length - 1 if length else 32) and length <= 8001, "a leaf of another length")
        self.payload = rest if length else None
        self.hash = leaf_hash(self.kind, sha256(rest) if length else rest)

    def fields(self):
        need(self.payload is not None, "a payload that is not shown")
        fields = fields_of(self.payload)
        need(len(one(fields, 1)) == 16, "the salt")
        return fields


def covers(fields, index):
    for part in many(fields, 2):
        part = fields_of(part)
        first = one(part, 1, 0)
        if first <= index < first + one(part, 2, 0):
            return True
    return False


def names(leaf, index):
    if leaf.kind == PUBLISH:
        replaced = leaf.fields().get(10, [])
        flat = [n for part in replaced for n in (packed(part) if isinstance(part, bytes) else [part])]
        return index in flat
    return leaf.kind in (RETRACT, ERASE) and covers(leaf.fields(), index)


def described(leaf, genesis, slug):
    """The set's name in a describe leaf of the publisher, and what it holds."""
    need(leaf.kind == DESCRIBE, "a leaf that describes nothing")
    fields = leaf.fields()
    need(digest_of(fields, 2) == genesis, "a describe leaf of another coalition")
    member, _, name = one(fields, 4).decode().partition("/")
    need(member == slug and name, "a describe leaf of another member")
    return name.encode(), one(fields, 3, 0)


def whose(feed, payload, chain, genesis):
    """The slug in a first payload, and the genesis that gives the feed's id with it."""
    slug = one(fields_of(payload), 4).decode().partition("/")[0]
    need(slug in chain[-1].members, "a feed of nobody")
    for begun in [genesis] + chain[-1].former:
        said = b"hashpact feed id v1\n" + begun + bytes([len(slug)]) + slug.encode() + sha256(payload)
        if sha256(said) == feed:
            return slug, begun
    raise Refused("the first leaf is not this feed's")


def check_proof(body, genesis):
    known = {1: "bytes", 2: "number", 3: "number", 4: "list", 5: "list", 6: "bytes", 7: "list", 8: "number", 9: "bytes", 10: "list"}
    fields = spelled(body, known)
    feed, index = digest_of(fields, 1), one(fields, 2, 0)
    chain = check_chain(many(fields, 4), genesis, one(fields, 3, 0))
    roster = chain[-1]
    cards = check_cards(many(fields, 5), roster, genesis)
    describe_index, named_by = one(fields, 8, 0), packed(one(fields, 9))
    need(named_by == sorted(set(named_by)) and (not named_by or named_by[0] > index), "indexes out of order")
    leaves = {leaf.index: leaf for leaf in map(Leaf, many(fields, 10))}
    need(len(named_by) <= 16 and len(leaves) == len(many(fields, 10)), "a leaf comes twice")
    need(list(leaves) == sorted({0, describe_index, index, *named_by}), "other leaves than it says")
    need(leaves[0].kind == DESCRIBE and leaves[0].payload is not None, "the first leaf is not this feed's")
    slug, begun = whose(feed, leaves[0].payload, chain, genesis)
    name, holds = described(leaves[0], begun, slug)
    need(described(leaves[describe_index], begun, slug) == (name, holds), "a describe leaf of another set")
    own = [card for card in cards if card.slug == slug]
    epoch, size, root, key = check_head(one(fields, 6), roster, feed, own, name)
    check_stands(roster, feed, epoch, size, root)
    for leaf in leaves.values():
        check_inclusion(leaf.hash, leaf.index, size, leaf.path, root)
    need(leaves[index].kind == PUBLISH, "a leaf that publishes nothing")
    if leaves[index].payload is not None:
        need(leaves[index].fields().get(3), "an entry without signals")
    need(all(names(leaves[at], index) for at in named_by), "a leaf that does not name the entry")
    cosigned = check_cosignatures(many(fields, 7), one(fields, 6).decode(), roster, cards)
    check_needed(by_member(cards, roster), [key] + [k for _, k, _, _ in cosigned])
    by_present = [said for said in cosigned if key_replaced_in(chain, said[0], said[1], cards) is None]
    count, threshold = quorum(roster, slug, by_present)
    shows = {
        "kind": "proof",
        "entry": f"{slug}/{name.decode()}#{index}",
        "size": size,
        "epoch": epoch,
        "named_by": named_by,
        "cosigned": count,
        "threshold": threshold,
        "roster": roster.version,
    }
    shows = doubted(shows, chain, feed, [(epoch, size, root, key)])
    return replaced(shows, key_replaced_in(chain, slug, key, cards))


def check_cosignatures(lines, note, roster, cards):
    body = note[: note.index("\n\n") + 1]
    found = []
    for line in lines:
        text = line.decode()
        need(text.endswith("\n"), "a cosignature without its newline")
        name, signature = base.split_line(text[:-1])
        prefix = f"{roster.coalition}/witness/"
        need(name.startswith(prefix) and name[len(prefix) :] in roster.members, "a cosignature by nobody")
        slug = name[len(prefix) :]
        time = int.from_bytes(signature[4:12], "big")
        need(len(signature) == 76 and time < 1 << 63, "a cosignature of another length")
        message = f"cosignature/v1\ntime {time}\n{body}".encode()
        keys = sorted({key for card in cards if card.slug == slug for key in card.witness_keys})
        fitting = [k for k in keys if base.key_id(name, 4, k) == signature[:4] and signed_by(k, message, signature[12:])]
        need(fitting, "a cosignature that no key made")
        counts = any(fitting[0] in card.counted for card in cards if card.slug == slug)
        found.append((slug, fitting[0], time, counts))
    need(len({key for _, key, _, _ in found}) == len(found), "two cosignatures of one key")
    return found


def quorum(roster, publisher, cosigned):
    """How many count, of how many needed, by one roster; nobody is a witness of its own feed."""
    bench = roster.witnesses() - {publisher}
    count = len({slug for slug, _, _, counts in cosigned if counts} & bench)
    needed = roster.witness_threshold or 1 + 2 * len(bench) // 3
    return count, needed if bench else 0


def check_evidence(body, genesis):
    known = {1: "number", 2: "list", 3: "bytes", 4: "bytes", 5: "bytes"}
    fields = spelled(body, known)
    chain = check_chain(many(fields, 2), genesis, one(fields, 1, 0))
    fork, documents = one(fields, 3), one(fields, 5)
    need(bool(fork) != bool(documents), "it has to show exactly one thing")
    if fork:
        return check_fork(fork, one(fields, 4), chain, genesis)
    need(not one(fields, 4), "documents are of no feed")
    return check_documents(documents, chain, genesis)


def check_fork(fork, payload, chain, genesis):
    fields = spelled(fork, {1: "bytes", 2: "bytes", 3: "bytes", 4: "list", 5: "list", 6: "list"})
    feed, roster = digest_of(fields, 1), chain[-1]
    cards = check_cards(many(fields, 6), roster, genesis)
    need(len({card.slug for card in cards}) == 1, "cards that are not of one member")
    slug, name = cards[0].slug, None
    if payload:
        owner, begun = whose(feed, payload, chain, genesis)
        need(owner == slug, "a feed of another member")
        first = one(fields_of(payload), 4).decode().partition("/")[2]
        need(digest_of(fields_of(payload), 2) == begun and first, "a describe leaf of another coalition")
        name = first.encode()
    one_epoch, m, small, key = check_head(one(fields, 2), roster, feed, cards, name)
    epoch, n, large, other = check_head(one(fields, 3), roster, feed, cards, name)
    need(epoch == one_epoch and m <= n, "notes of two epochs, or in the wrong order")
    before = base.counted(0, m, [h.hex() for h in many(fields, 4)], "before")
    between = base.counted(m, n, [h.hex() for h in many(fields, 5)], "between")
    need(base.root_of(before + between) == large, "ranges that do not lead to the larger root")
    need(base.root_of(before) != small, "the two agree")
    check_needed(cards, {key, other})
    shows = {"kind": "fork", "member": slug, "set": name.decode() if name else None, "sizes": [m, n], "epoch": epoch}
    shows = doubted(shows, chain, feed, [(epoch, m, small, key), (epoch, n, large, other)])
    return replaced(shows, max((replaced_in(chain, card) or 0 for card in cards), default=0))


def check_documents(documents, chain, genesis):
    fields = spelled(documents, {1: "bytes", 2: "bytes"})
    pair = [one(fields, 1), one(fields, 2)]
    try:
        cards = [(Envelope(data, "node-card"), Card(data, chain[-1], genesis)) for data in pair]
    except Refused:
        return check_rosters(pair, chain, genesis)
    (first, one_card), (second, other) = cards
    need(first.digest < second.digest, "the two are one, or in the wrong order")
    said = [fields_of(envelope.payload) for envelope in (first, second)]
    need(one_card.slug == other.slug and one(said[0], 4, 0) == one(said[1], 4, 0), "cards of two versions or members")
    identities = chain[-1].members[other.slug]["identities"]
    need(any(first.has(key) and second.has(key) for key in identities), "cards of two identity keys")
    shows = {"kind": "node-cards", "member": other.slug, "version": one(said[0], 4, 0)}
    return replaced(shows, replaced_in(chain, one_card))


def check_rosters(pair, chain, genesis):
    envelopes = [Envelope(data, "roster") for data in pair]
    need(envelopes[0].digest < envelopes[1].digest, "the two are one, or in the wrong order")
    rosters = [Roster(envelope) for envelope in envelopes]
    version = rosters[0].version
    need(version == rosters[1].version and 1 < version <= len(chain) + 1, "rosters of other versions")
    for roster, envelope in zip(rosters, envelopes):
        check_next(chain[: version - 1], roster, envelope, genesis)
        need(roster.approved(envelope), "too few administrators signed")
    return {"kind": "rosters", "version": version}


def check(file, genesis):
    if file.startswith(b"hashpact evidence"):
        return check_evidence(opened(file, "evidence"), genesis)
    return check_proof(opened(file, "proof"), genesis)


BROKEN = (Refused, ValueError, KeyError, IndexError, TypeError, OverflowError, UnicodeDecodeError)


def self_test(file, genesis, step=7):
    """Changes a byte in every few, and seals the file again as a forger would."""
    check(file, genesis)
    first = file.index(b"\n") + 1
    changes = 0
    for at in range(first, len(file) - 32, step):
        rest = file[:at] + bytes([file[at] ^ 1]) + file[at + 1 : -32]
        for other in (rest + file[-32:], rest + sha256(rest), file[:at]):
            changes += 1
            try:
                check(other, genesis)
            except BROKEN:
                continue
            raise Refused(f"byte {at} was accepted with a change")
    try:
        check(file, bytes(32))
    except BROKEN:
        return changes + 1
    raise Refused("another genesis was accepted")


def vectors(path):
    with open(path, encoding="utf-8") as file:
        told = json.load(file)
    genesis = base.unhex(told["genesis"], 32)
    changes = 0
    for name, case in told["files"].items():
        data = base.unhex(case["file"])
        need(check(data, genesis) == case["shows"], f"{name} shows something else")
        changes += self_test(data, genesis)
    return changes


def main(arguments):
    try:
        if arguments[:1] == ["--vectors"] and len(arguments) == 2:
            print(f"ok: {vectors(arguments[1])} changes, all refused")
            return 0
        tests = arguments[:1] == ["--self-test"]
        if len(arguments) != 2 + tests:
            sys.exit(__doc__)
        with open(arguments[-2], "rb") as file:
            data = file.read((64 << 20) + 1)
        genesis = base.unhex(arguments[-1], 32)
        if tests:
            print(f"ok: {self_test(data, genesis)} changes, all refused")
        else:
            print(json.dumps(check(data, genesis), sort_keys=True))
    except Refused as reason:
        print(f"refused: {reason}")
        return 1
    except BROKEN + (OSError,) as error:
        print(f"refused: cannot be read: {type(error).__name__}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) if sys.argv[1:] else __doc__)
