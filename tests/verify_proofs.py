#!/usr/bin/env python3
"""An independent check of hashpact's proofs: Python 3, standard library only.

    verify_proofs.py CAPTURE.json              says ok, or refuses with a reason (exit code 1)
    verify_proofs.py --self-test CAPTURE.json  changes every field and expects each to be refused
    verify_proofs.py --merkle VECTORS.json     recomputes tests/vectors/merkle.json
    verify_proofs.py --checkpoint VECTOR.json  recomputes tests/vectors/checkpoint.json
    verify_proofs.py --feed VECTORS.json       recomputes tests/vectors/feed.json, then changes every field
    verify_proofs.py --bundle VECTOR.json      reads tests/vectors/bundle.json, then changes every byte

A capture is what a Pull gave, decoded, with the head that it was pinned to:

    {"note": the signed note's text, "feed_key": hex,
     "chunks": [{"from": 5, "to": 7, "before": [hex ...], "after": [hex ...],
                 "leaves": [{"kind": 2, "payload_hex": hex} or {"kind": 2, "digest_hex": hex} ...]}]}

Written from the documents (RFC 6962, RFC 8032, C2SP signed-note and tlog-checkpoint,
docs/PROTOCOL.md), not from the Rust code.
"""
import base64
import copy
import hashlib
import json
import re
import sys

MAX_LEAVES = 1 << 40


class Refused(Exception):
    """The capture proves nothing, and why."""


def need(condition, reason):
    if not condition:
        raise Refused(reason)


def sha256(data):
    return hashlib.sha256(data).digest()


# Ed25519 (RFC 8032 5.1), slow and plain, for public data only.

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ROOT_OF_MINUS_1 = pow(2, (P - 1) // 4, P)


def point_add(a, b):
    (x1, y1, z1, t1), (x2, y2, z2, t2) = a, b
    e, f = (y1 - x1) * (y2 - x2), (y1 + x1) * (y2 + x2)
    g, h = 2 * t1 * t2 * D, 2 * z1 * z2
    p, q, r, s = f - e, h - g, h + g, f + e
    return (p * q % P, r * s % P, q * r % P, p * s % P)


def point_multiply(n, point):
    result = (0, 1, 1, 0)
    while n:
        if n & 1:
            result = point_add(result, point)
        point, n = point_add(point, point), n >> 1
    return result


def point_equal(a, b):
    return (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


def point_decode(data):
    number = int.from_bytes(data, "little")
    y, sign = number & ((1 << 255) - 1), number >> 255
    need(y < P, "a point that is not canonical")
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT_OF_MINUS_1 % P
    need((x * x - square) % P == 0, "bytes that are no point")
    need(x or not sign, "a point that is not canonical")
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


def check_small_order(point):
    need(not point_equal(point_multiply(8, point), (0, 1, 1, 0)), "a weak point")


BASE = point_decode((4 * pow(5, -1, P) % P).to_bytes(32, "little"))


def check_ed25519(key, message, signature):
    need(len(key) == 32 and len(signature) == 64, "a key or signature of a wrong length")
    a, r = point_decode(key), point_decode(signature[:32])
    check_small_order(a)
    check_small_order(r)
    s = int.from_bytes(signature[32:], "little")
    need(s < L, "a signature that is not canonical")
    k = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % L
    need(point_equal(point_multiply(s, BASE), point_add(r, point_multiply(k, a))), "the signature does not verify")


# Notes (C2SP signed-note, tlog-checkpoint).


def strict_base64(text):
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise Refused("no base64") from None
    need(base64.b64encode(data).decode() == text, "base64 that is not canonical")
    return data


def key_id(name, kind, key):
    return sha256(name.encode() + b"\n" + bytes([kind]) + key)[:4]


def split_line(line):
    match = re.fullmatch("\u2014 ([^\\s+]+) ([A-Za-z0-9+/=]+)", line)
    need(match, "a signature line that is none")
    return match.group(1), strict_base64(match.group(2))


def check_note(note, key):
    """Returns (size, root) of a note that `key` signed."""
    shape = r"([a-z0-9.-]+/feed/[0-9a-f]{64}/(?:0|[1-9][0-9]*))\n(0|[1-9][0-9]*)\n([A-Za-z0-9+/]{43}=)\n\n([^\n]*)\n"
    match = re.fullmatch(shape, note)
    need(match, "the note is no checkpoint of a feed")
    origin, size, root, line = match.groups()
    name, signature = split_line(line)
    need(name == origin, "the signature has another name than the origin")
    need(signature[:4] == key_id(name, 1, key), "the signature is of another key")
    check_ed25519(key, note[: note.index("\n\n") + 1].encode(), signature[4:])
    need(int(size) <= MAX_LEAVES, "a size that no feed has")
    return int(size), strict_base64(root)


# The tree (RFC 6962 2.1) and compact ranges.


def leaf_hash(kind, digest):
    return sha256(b"\0" + bytes([kind]) + digest)


def node_hash(left, right):
    return sha256(b"\1" + left + right)


def cover(begin, end):
    """The widths of the largest aligned subtrees that fill [begin, end), left to right."""
    widths = []
    while begin < end:
        width = 1
        while begin % (2 * width) == 0 and begin + 2 * width <= end:
            width *= 2
        widths.append(width)
        begin += width
    return widths


def root_of(subtrees):
    """The root over (width, hash) from leaf 0: equal neighbours join, the rest from the right."""
    stack = []
    for width, value in subtrees:
        stack.append((width, value))
        while len(stack) > 1 and stack[-1][0] == stack[-2][0]:
            (_, right), (width, left) = stack.pop(), stack.pop()
            stack.append((2 * width, node_hash(left, right)))
    if not stack:
        return sha256(b"")
    value = stack.pop()[1]
    while stack:
        value = node_hash(stack.pop()[1], value)
    return value


def counted(begin, end, hashes, what):
    widths = cover(begin, end)
    need(isinstance(hashes, list) and len(hashes) == len(widths), f"{what}: {len(hashes)} hashes, its bounds dictate {len(widths)}")
    return list(zip(widths, (unhex(h, 32) for h in hashes)))


def check_chunk(chunk, size, root):
    need(set(chunk) == {"from", "to", "leaves", "before", "after"}, "a chunk with other fields")
    begin, end = chunk["from"], chunk["to"]
    need(type(begin) is int and type(end) is int and 0 <= begin < end <= size, "a chunk that is no range of the feed")
    need(len(chunk["leaves"]) == end - begin, "another number of leaves than from and to dictate")
    before = counted(0, begin, chunk["before"], "before")
    after = counted(end, size, chunk["after"], "after")
    leaves = [(1, check_leaf(leaf)) for leaf in chunk["leaves"]]
    need(root_of(before + leaves + after) == root, f"leaves {begin} to {end} do not lead to the head's root")


def check_leaf(leaf):
    kind = leaf.get("kind")
    need(type(kind) is int and 0 <= kind <= 255, "a kind that is no byte")
    if set(leaf) == {"kind", "payload_hex"}:
        payload = unhex(leaf["payload_hex"])
        need(len(payload) <= 8000, "a payload over the limit")
        return leaf_hash(kind, sha256(payload))
    need(set(leaf) == {"kind", "digest_hex"}, "a leaf with neither a payload nor a digest")
    return leaf_hash(kind, unhex(leaf["digest_hex"], 32))


def unhex(text, length=None):
    need(isinstance(text, str) and re.fullmatch("(?:[0-9a-f]{2})*", text), "no lower-case hexadecimal")
    data = bytes.fromhex(text)
    need(length is None or len(data) == length, f"{len(data)} bytes, not {length}")
    return data


def check_capture(capture):
    need(isinstance(capture, dict) and set(capture) == {"note", "feed_key", "chunks"}, "a capture with other fields")
    need(capture["chunks"], "no chunks")
    size, root = check_note(capture["note"], unhex(capture["feed_key"], 32))
    for chunk in capture["chunks"]:
        check_chunk(chunk, size, root)
    return size, sum(len(chunk["leaves"]) for chunk in capture["chunks"])


# The self-test: every field changed, every list longer, shorter and in another order.


def changed_text(text):
    middle = len(text) // 2
    for at in sorted({0, middle, len(text) - 1} & set(range(len(text)))):
        other = "1" if text[at] != "1" else "2"
        yield text[:at] + other + text[at + 1 :]
    yield text + "00"
    if text:
        yield text[2:]


def changed(value):
    """Every value that differs from `value` in one place."""
    if isinstance(value, dict):
        for field in value:
            for other in changed(value[field]):
                yield {**value, field: other}
            yield {k: v for k, v in value.items() if k != field}
    elif isinstance(value, list):
        for at, item in enumerate(value):
            for other in changed(item):
                yield value[:at] + [other] + value[at + 1 :]
            yield value[:at] + value[at + 1 :]
            yield value[: at + 1] + [copy.deepcopy(item)] + value[at + 1 :]
            if at and value[at - 1] != item:
                yield value[: at - 1] + [item, value[at - 1]] + value[at + 1 :]
    elif isinstance(value, str):
        yield from changed_text(value)
    else:
        yield from (value + 1, value - 1)


def refused(capture):
    try:
        check_capture(capture)
    except Refused:
        return True
    return False


def self_test(capture):
    check_capture(capture)
    need(capture["chunks"][1:], "the self-test wants a capture with two chunks or more")
    note, mutations = capture["note"], 0
    size, root = check_note(note, unhex(capture["feed_key"], 32))
    for at in range(len(note)):
        for other in (note[:at] + note[at + 1 :], note[:at] + ("x" if note[at] != "x" else "y") + note[at + 1 :]):
            mutations += 1
            need(refused({**capture, "note": other}), f"a note changed at {at} was accepted")
    for other in changed_text(capture["feed_key"]):
        mutations += 1
        need(refused({**capture, "feed_key": other}), "another key was accepted")
    for number, chunk in enumerate(capture["chunks"]):
        for other in changed(chunk):
            mutations += 1
            try:  # the head is checked above, once; Ed25519 in Python is slow
                check_chunk(other, size, root)
            except Refused:
                continue
            raise Refused(f"chunk {number} was accepted with a change")
    return mutations


# The vectors.


def tree_hash(leaves):
    """MTH of RFC 6962 2.1, as the RFC writes it."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256(b"")
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return node_hash(tree_hash(leaves[:split]), tree_hash(leaves[split:]))


def inclusion_path(index, leaves):
    """PATH of RFC 6962 2.1.1."""
    if len(leaves) < 2:
        return []
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    if index < split:
        return inclusion_path(index, leaves[:split]) + [tree_hash(leaves[split:])]
    return inclusion_path(index - split, leaves[split:]) + [tree_hash(leaves[:split])]


def consistency_path(old, leaves, whole=True):
    """SUBPROOF of RFC 6962 2.1.2."""
    if old == len(leaves):
        return [] if whole else [tree_hash(leaves)]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    if old <= split:
        return consistency_path(old, leaves[:split], whole) + [tree_hash(leaves[split:])]
    return consistency_path(old - split, leaves[split:], False) + [tree_hash(leaves[:split])]


def check_merkle(vectors):
    leaves = [check_leaf(leaf) for leaf in vectors["leaves"]]
    hexes = lambda hashes: [h.hex() for h in hashes]
    for size, root in enumerate(vectors["roots"]):
        need(tree_hash(leaves[:size]).hex() == root, f"root at {size}")
    for v in vectors["compact_ranges"]:
        at, hashes = v["begin"], []
        for width in cover(v["begin"], v["end"]):
            hashes.append(tree_hash(leaves[at : at + width]))
            at += width
        need(hexes(hashes) == v["hashes"], f"compact range {v['begin']} {v['end']}")
    for v in vectors["inclusion"]:
        need(hexes(inclusion_path(v["index"], leaves[: v["size"]])) == v["proof"], f"inclusion {v['index']} {v['size']}")
    for v in vectors["consistency"]:
        need(hexes(consistency_path(v["old"], leaves[: v["new"]])) == v["proof"], f"consistency {v['old']} {v['new']}")
    return sum(map(len, vectors.values()))


def check_checkpoint(v):
    size, root = check_note(v["note"], unhex(v["feed_key"], 32))
    need(str(size) == v["size"] and root.hex() == v["root"], "the note says something else")
    for who, kind in (("feed", 1), ("witness", 4)):
        name, key = v["origin"] if who == "feed" else v["witness_name"], unhex(v[who + "_key"], 32)
        encoded = base64.b64encode(bytes([kind]) + key).decode()
        need(v[who + "_vkey"] == f"{name}+{key_id(name, kind, key).hex()}+{encoded}", f"the verifier key of the {who}")
    name, signature = split_line(v["cosignature"].removesuffix("\n"))
    need(name == v["witness_name"] and signature[:4] == key_id(name, 4, key), "the cosignature's key")
    need(int.from_bytes(signature[4:12], "big") == int(v["cosigned_time_s"]), "the cosignature's time")
    body = v["note"][: v["note"].index("\n\n") + 1]
    check_ed25519(key, f"cosignature/v1\ntime {v['cosigned_time_s']}\n{body}".encode(), signature[12:])


# A feed's identity, a retraction's signature, a page (PROTOCOL 2.6, 9, 11.2, 12.9).


def varint(data, at):
    value = shift = 0
    while True:
        need(at < len(data) and shift < 70, "a varint that is cut")
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not data[at - 1] & 0x80:
            return value, at


def fields_of(message):
    """The fields of a protobuf message: number -> values, in order."""
    fields, at = {}, 0
    while at < len(message):
        key, at = varint(message, at)
        need(key & 7 in (0, 2), "a wire type that our messages do not have")
        value, at = varint(message, at)
        if key & 7 == 2:
            end = at + value
            need(end <= len(message), "a field that is cut")
            value, at = message[at:end], end
        fields.setdefault(key >> 3, []).append(value)
    return fields


def u64(number):
    return number.to_bytes(8, "big")


def check_feed_id(v):
    genesis, slug = unhex(v["genesis_digest"], 32), v["publisher"].encode()
    first = sha256(unhex(v["first_payload"]))
    feed = sha256(b"hashpact feed id v1\n" + genesis + bytes([len(slug)]) + slug + first)
    need(unhex(v["feed_id"]) == feed, "the feed id")
    need(v["origin"] == f"{v['coalition']}/feed/{feed.hex()}/{v['epoch']}", "the origin")
    return feed


def check_retraction(v, feed):
    fields = fields_of(unhex(v["payload"]))
    need(len(fields.get(1, [b""])[0]) == 16, "the salt")
    ranges = [fields_of(one) for one in fields.get(2, [])]
    said = feed + bytes([fields[3][0], fields.get(5, [0])[0]]) + u64(fields[6][0]) + u64(len(ranges))
    said += b"".join(u64(one.get(1, [0])[0]) + u64(one[2][0]) for one in ranges)
    signed = b"hashpact mass retraction v1\n" + sha256(said)
    need(unhex(v["signing_bytes"]) == signed, "the bytes that the identity key signs")
    need(fields[7] == [unhex(v["signature"], 64)], "the signature in the leaf")
    check_ed25519(unhex(v["identity_key"], 32), signed, unhex(v["signature"], 64))


def leaves_of(plain):
    """The leaf hashes of a plain form."""
    hashes, at = [], 0
    while at < len(plain):
        kind = plain[at]
        length, begin = varint(plain, at + 1)
        need(begin - at == 2 or (begin - at == 3 and plain[begin - 1]), "a length that is not canonical")
        if length == 0:
            at, digest = begin + 32, plain[begin : begin + 32]
        else:
            at, digest = begin + length - 1, sha256(plain[begin : begin + length - 1])
        need(at <= len(plain), "a leaf that is cut")
        hashes.append(leaf_hash(kind, digest))
    return hashes


def frame_content(frame):
    """Where the blocks of a zstd frame begin, and the content size that it declares (RFC 8878 3.1.1)."""
    need(frame[:4] == b"\x28\xb5\x2f\xfd", "no zstd frame")
    flags = frame[4]
    need(not flags & 0x08 and not flags & 0x03, "a reserved bit, or a dictionary")
    single, width = flags >> 5 & 1, (0, 2, 4, 8)[flags >> 6]
    width = width or single
    need(width, "no content size")
    at = 5 + (not single)
    size = int.from_bytes(frame[at : at + width], "little") + (256 if width == 2 else 0)
    return at + width, size


def check_page(v):
    plain = unhex(v["plain"])
    hashes = leaves_of(plain)
    need(len(hashes) == 256, "a page of another number of leaves")
    need(tree_hash(hashes).hex() == v["root"], "the page's root")
    wire, stored = unhex(v["wire"]), unhex(v["wire_not_compressed"])
    need(frame_content(wire)[1] == len(plain), "the size that the frame declares")
    at, size = frame_content(stored)
    block = int.from_bytes(stored[at : at + 3], "little")
    need(block == len(plain) << 3 | 1 and size == len(plain), "one last, raw block")
    need(stored[at + 3 :] == plain, "the content of the frame")
    try:
        from compression import zstd  # from Python 3.14 on
    except ImportError:
        return
    need(zstd.decompress(wire) == plain, "the content of the compressed frame")


def check_feed_once(v):
    need(set(v) == {"feed", "retraction", "page"}, "other parts")
    check_retraction(v["retraction"], check_feed_id(v["feed"]))
    check_page(v["page"])


def check_feed(v):
    check_feed_once(v)
    for part in v:
        for field, value in v[part].items():
            if field == "wire":
                continue  # without zstd only its header is read
            for other in changed(value):
                try:
                    check_feed_once({**v, part: {**v[part], field: other}})
                except (Refused, KeyError, IndexError, ValueError, OverflowError):
                    continue
                raise Refused(f"{part}.{field} was accepted with a change")


def walk_bundle(file):
    """The records of a bundle as (offset, kind, length, check, body); its framing is checked."""
    need(file[:16] == b"hashpact bundle\n", "no bundle")
    at, records, checks = 16, [], hashlib.sha256()
    limits = {1: 1024, 2: 1048640, 3: 2097216, 4: 4194304, 5: 4194304, 255: 40}
    while True:
        kind, length = file[at], int.from_bytes(file[at + 1 : at + 5], "big")
        need(length <= limits.get(kind, -1), "a kind that there is not, or too long a body")
        body, end = file[at + 5 : at + 5 + length], at + 13 + length
        check = file[end - 8 : end]
        need(end <= len(file) and sha256(file[at : at + 5] + body)[:8] == check, "a record's check")
        need((kind == 1) == (at == 16), "a header elsewhere than at the beginning")
        if kind == 255:
            need(body == len(records).to_bytes(8, "big") + checks.digest(), "the end")
            need(end == len(file), "bytes after the end")
            return records + [(at, kind, length, check, body)]
        records.append((at, kind, length, check, body))
        checks.update(check)
        at = end


def check_bundle(v):
    need(set(v) == {"genesis", "records", "file"}, "other parts")
    file = unhex(v["file"])
    records = walk_bundle(file)
    told = [(r["offset"], r["kind"], r["length"], unhex(r["check"], 8)) for r in v["records"]]
    need([r[:4] for r in records] == told, "other records than are told")
    header = records[0][4]
    need(header[0] == 1 and header[1:33] == unhex(v["genesis"], 32), "version and genesis")
    next_leaf = 0
    for _, _, _, _, body in (r for r in records if r[1] == 5):
        begin, end = int.from_bytes(body[:8], "big"), int.from_bytes(body[8:16], "big")
        need(begin == next_leaf < end, "chunks that do not follow one another")
        next_leaf = end
    for at in range(len(file)):
        other = file[:at] + bytes([file[at] ^ 1]) + file[at + 1 :]
        for changed in (other, file[:at]):
            try:
                walk_bundle(changed)
            except (Refused, IndexError):
                continue
            raise Refused(f"byte {at} was accepted with a change")


def main(arguments):
    modes = {
        "--self-test": self_test,
        "--merkle": check_merkle,
        "--checkpoint": check_checkpoint,
        "--feed": check_feed,
        "--bundle": check_bundle,
    }
    check = modes.get(arguments[0]) if len(arguments) == 2 else check_capture
    if check is None or len(arguments) not in (1, 2):
        sys.exit(__doc__)
    try:
        with open(arguments[-1], encoding="utf-8") as file:
            capture = json.load(file)
        result = check(capture)
    except Refused as reason:
        print(f"refused: {reason}")
        return 1
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        print(f"refused: cannot be read: {type(error).__name__}")
        return 1
    if check is self_test:
        print(f"ok: {result} changes, all refused")
    elif check is check_capture:
        print(f"ok: {result[1]} leaves lead to the signed head of {result[0]}")
    else:
        print("ok")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) if sys.argv[1:] else __doc__)
