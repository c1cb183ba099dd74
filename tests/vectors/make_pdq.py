"""Makes the synthetic pictures of tests/data/images and what Python's pdqhash says of them (tests/vectors/pdq.json).

Needs: pip install pdqhash pillow numpy. Everything is drawn from fixed seeds; no picture shows anything.
Run from the repository's root: python tests/vectors/make_pdq.py
"""

import json
import pathlib

import numpy as np
import pdqhash
from PIL import Image, ImageDraw, ImageFilter

IMAGES = pathlib.Path("tests/data/images")
VECTORS = pathlib.Path("tests/vectors/pdq.json")
TURNS = ["original", "rotate90", "rotate180", "rotate270", "flip-x", "flip-y", "flip-plus1", "flip-minus1"]


def shapes(width, height, seed, count=40):
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (width, height), tuple(int(v) for v in rng.integers(0, 256, 3)))
    draw = ImageDraw.Draw(picture)
    for _ in range(count):
        x, y = rng.integers(0, width), rng.integers(0, height)
        w, h = rng.integers(4, max(5, width // 3)), rng.integers(4, max(5, height // 3))
        fill = tuple(int(v) for v in rng.integers(0, 256, 3))
        [draw.ellipse, draw.rectangle][rng.integers(0, 2)]([int(x), int(y), int(x + w), int(y + h)], fill=fill)
    return picture


def gradient(width, height):
    x = np.linspace(0, 255, width)[None, :]
    y = np.linspace(0, 255, height)[:, None]
    rgb = np.stack([x + 0 * y, 0 * x + y, (x + y) / 2], axis=2)
    return Image.fromarray(rgb.astype("uint8"))


def noise(width, height, seed):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype="uint8"))


def waves(width, height):
    y, x = np.mgrid[0:height, 0:width]
    v = 127 + 80 * np.sin(x / 7.0) * np.cos(y / 11.0) + 40 * np.sin((x + 2 * y) / 29.0)
    return Image.fromarray(np.clip(v, 0, 255).astype("uint8"))


def alpha(picture):
    mask = Image.new("L", picture.size, 255)
    ImageDraw.Draw(mask).ellipse([10, 10, 90, 60], fill=0)
    picture = picture.copy()
    picture.putalpha(mask)
    return picture


IMAGES.mkdir(parents=True, exist_ok=True)
base = shapes(320, 240, 1)
pictures = [
    ("shapes.png", base, {}),
    ("shapes-odd.png", shapes(201, 133, 2), {}),
    ("shapes-tall.png", shapes(97, 301, 3), {}),
    ("shapes-64.png", shapes(64, 64, 4), {}),
    ("shapes-small.png", shapes(33, 21, 5), {}),
    ("shapes-tiny.png", shapes(5, 7, 6, 5), {}),
    ("shapes-wide.png", shapes(1100, 90, 7, 60), {}),
    ("shapes-alpha.png", alpha(shapes(120, 80, 8)), {}),
    ("shapes-palette.png", shapes(150, 110, 9).convert("P", palette=Image.Palette.ADAPTIVE), {}),
    ("shapes-quality-low.png", shapes(160, 120, 10, 3).filter(ImageFilter.GaussianBlur(12)), {}),
    ("gradient.png", gradient(256, 128), {}),
    ("waves-grey.png", waves(200, 150), {}),
    ("noise.png", noise(72, 72, 11), {}),
    ("flat.png", Image.new("RGB", (40, 40), (90, 120, 30)), {}),
    ("shapes.bmp", shapes(70, 50, 12, 12), {}),
    ("shapes.gif", shapes(128, 96, 13).convert("P", palette=Image.Palette.ADAPTIVE), {}),
    ("shapes.tiff", shapes(110, 90, 14), {"compression": "tiff_lzw"}),
    ("shapes-lossless.webp", shapes(130, 100, 15), {"lossless": True}),
    ("shapes-420.jpg", base, {"quality": 85}),
    ("shapes-444.jpg", base, {"quality": 90, "subsampling": 0}),
    ("shapes-half.jpg", base.resize((160, 120), Image.Resampling.LANCZOS), {"quality": 60}),
    ("shapes-grey.jpg", base.convert("L"), {"quality": 85}),
    ("shapes-progressive.jpg", shapes(240, 180, 16), {"quality": 80, "progressive": True}),
    ("shapes-lossy.webp", base, {"quality": 75}),
]
vectors = []
for name, picture, options in pictures:
    path = IMAGES / name
    picture.save(path, **options)
    pixels = np.asarray(Image.open(path).convert("RGB"))
    bits, quality = pdqhash.compute(pixels)
    turned, _ = pdqhash.compute_dihedral(pixels)
    as_hex = lambda bits: np.packbits(np.asarray(bits, dtype="uint8")).tobytes().hex()
    exact = path.suffix not in (".jpg",) and "lossy.webp" not in name
    vectors.append(
        {
            "file": name,
            "exact": exact,
            "pdq": as_hex(bits),
            "quality": int(quality),
            "dihedral": {turn: as_hex(value) for turn, value in zip(TURNS, turned)},
        }
    )
VECTORS.write_text(json.dumps({"made_with": "pdqhash " + pdqhash.__version__, "pictures": vectors}, indent=1) + "\n")
