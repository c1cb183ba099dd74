"""Makes tests/corpus/image: picture files that lie, break off or blow up.

Needs nothing but Python's standard library. Each file is named after what it is refused with, "ok" for nothing, and
what is wrong with it. Run from the repository's root: python tests/vectors/make_image_corpus.py
"""

import pathlib
import struct
import zlib

CORPUS = pathlib.Path("tests/corpus/image")
IMAGES = pathlib.Path("tests/data/images")
BOMB = bytes(32 << 20)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, chunks, bits=8, colour=2):
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = b"".join(chunk(kind, content) for kind, content in chunks)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def rows(width, height):
    """Rows of a picture with something to see."""
    line = lambda y: b"\0" + bytes((x * y * 7 + x * 31) % 256 for x in range(width * 3))
    return zlib.compress(b"".join(line(y) for y in range(height)))


def gif(screen, frame, data):
    head = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + bytes(6)
    image = b"\x2c" + struct.pack("<HHHHB", 0, 0, *frame, 0)
    return head + image + b"\x02" + data + b"\0;"


def bmp(width, height, bits=24, compression=0, size=0, data=b""):
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, size, 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(data), 0, 0, 54) + info + data


def tiff(tags, following=0, tail=b""):
    ifd = struct.pack("<H", len(tags))
    for tag, kind, count, value in tags:
        ifd += struct.pack("<HHII", tag, kind, count, value)
    return b"II*\0" + struct.pack("<I", 8) + ifd + struct.pack("<I", following) + tail


def tiff_tags(width, height, offset, length, per_strip=None):
    return [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, offset),
        (277, 3, 1, 1),
        (278, 4, 1, per_strip or height),
        (279, 4, 1, length),
    ]


def jpeg_claiming(width, height):
    """A JPEG of which the frame header is changed."""
    file = bytearray((IMAGES / "shapes-420.jpg").read_bytes())
    at = file.index(b"\xff\xc0") + 5
    file[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(file)


def webp_lossless(width, height):
    bits = (width - 1) | (height - 1) << 14
    data = b"\x2f" + struct.pack("<I", bits) + bytes(40)
    body = b"WEBPVP8L" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def image(name):
    return (IMAGES / name).read_bytes()


FILES = {
    "image_empty--nothing": b"",
    "image_unsupported--text": b"%PDF-1.7 this is no picture",
    "image_unsupported--heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "image_unsupported--svg": b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>",
    "image_too_large--png-claims-60000": png(60_000, 60_000, [(b"IDAT", b"x")]),
    "image_too_large--gif-claims-65535": gif((65_535, 65_535), (1, 1), b"\x02\x4c\x01"),
    "image_too_large--bmp-claims-30000": bmp(30_000, 30_000),
    "image_too_large--jpeg-claims-65500": jpeg_claiming(65_500, 65_500),
    "image_too_large--webp-claims-16383": webp_lossless(16_383, 16_383),
    "image_too_large--tiff-claims-60000": tiff(tiff_tags(60_000, 60_000, 122, 10), tail=bytes(10)),
    "image_too_small--png-4": png(4, 100, [(b"IDAT", rows(4, 100))]),
    "ok--png-inflates-beyond-its-rows": png(16, 16, [(b"IDAT", zlib.compress(bytes(16 * 49) + BOMB, 9))]),
    "ok--png-text-that-inflates": png(
        16, 16, [(b"zTXt", b"a\0\0" + zlib.compress(BOMB, 9)), (b"IDAT", rows(16, 16))]
    ),
    "ok--png-profile-that-inflates": png(
        16, 16, [(b"iCCP", b"a\0\0" + zlib.compress(BOMB, 9)), (b"IDAT", rows(16, 16))]
    ),
    "image_truncated--png": image("shapes-small.png")[:200],
    "image_truncated--jpeg-without-end": image("shapes-420.jpg")[:-40].replace(b"\xff\xd9", b"\xff\0"),
    "image_malformed--png-no-rows": png(16, 16, []),
    "image_malformed--png-rows-are-no-zlib": png(16, 16, [(b"IDAT", b"\xff" * 40)]),
    "image_too_much_memory--gif-frame-beyond-screen": gif((8, 8), (60_000, 60_000), b"\x02\x4c\x01"),
    "image_truncated--bmp-run-lengths": bmp(40, 40, 8, 1, 6, b"\xff\xff\xff\xff\xff\xff"),
    "image_too_much_memory--tiff-strip-of-4-gib": tiff(tiff_tags(40, 40, 122, 0xFFFF_FFFF), tail=bytes(1600)),
    "image_truncated--tiff-strip-beyond-end": tiff(tiff_tags(40, 40, 0xFFFF_0000, 1600)),
    "image_malformed--tiff-folder-that-follows-itself": tiff(tiff_tags(40, 40, 122, 1600), following=8, tail=bytes(1600)),
    "image_malformed--webp-chunk-of-4-gib": b"RIFF\xff\xff\xff\xffWEBPVP8L\xff\xff\xff\xff" + bytes(20),
}

CORPUS.mkdir(parents=True, exist_ok=True)
for name, content in FILES.items():
    (CORPUS / name).write_bytes(content)
    print(len(content), name)
