"""Synthetic endoscopy: frames of instruments over tissue, drawn from a seed, with exact masks.

The image plane is the complex plane: a point is x + iy in pixels from the center, y downwards, so that
moving is adding and turning is multiplying. Shapes are signed distances in pixels, negative inside. What a
scene fixes is drawn from the scene's generator, rewound for every frame; what changes within a scene from
the frame's.
"""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from semiseg.data.recipe import Recipe
from semiseg.data.store import Case, DatasetInfo

SEED = 20240
SIZE = 96
# Three or four frames a scene, 240 in all.
FRAMES = tuple((scene, frame) for scene in range(64) for frame in range(4 if scene % 4 else 3))

Array = np.ndarray


class Material(NamedTuple):
    """How a part looks: its color, the strength of its reflections, and how much of the tissue it hides."""

    color: tuple[float, float, float]
    gloss: float
    opacity: float = 1.0


STEEL = Material((0.62, 0.64, 0.68), 0.7)
MATERIALS = {  # and how often a shaft is made of it
    STEEL: 0.26,
    Material((0.08, 0.08, 0.09), 0.3): 0.22,  # black plastic
    Material((0.78, 0.77, 0.72), 0.2): 0.14,  # white coating
    Material((0.18, 0.34, 0.66), 0.3): 0.12,  # blue coating
    Material((0.72, 0.66, 0.46), 0.7): 0.08,  # brass
    Material((0.18, 0.50, 0.34), 0.3): 0.06,  # green coating
    Material((0.70, 0.34, 0.32), 0.5): 0.06,  # a sheath the color of mucosa
    Material((0.80, 0.82, 0.80), 0.8, 0.65): 0.06,  # a clear sheath, through which the tissue shows
}
TISSUES = (
    (0.78, 0.42, 0.36),
    (0.66, 0.26, 0.22),
    (0.84, 0.56, 0.46),
    (0.72, 0.46, 0.32),
    (0.80, 0.60, 0.44),
    (0.54, 0.22, 0.20),
    (0.74, 0.50, 0.52),
    (0.60, 0.40, 0.34),
)

# Three by five pixels a character, one octal digit a row.
GLYPHS = dict(
    zip(
        "0123456789:/ABDEPT-",
        (
            "75557",
            "26227",
            "71747",
            "71717",
            "55711",
            "74717",
            "74757",
            "71122",
            "75757",
            "75717",
            "02020",
            "11244",
            "25755",
            "65656",
            "65556",
            "74647",
            "65644",
            "72222",
            "00700",
        ),
        strict=True,
    )
)


# Shapes: signed distances.


def disc(z: Array, center: complex, radius: float) -> Array:
    """A disc."""
    return np.abs(z - center) - radius


def taper(z: Array, start: complex, end: complex, first: float, last: float) -> Array:
    """A rod with round ends, from radius `first` at `start` to `last` at `end`."""
    along = np.clip(((z - start) * np.conj(end - start)).real / abs(end - start) ** 2, 0, 1)
    return np.abs(z - start - along * (end - start)) - first - along * (last - first)


def arc(z: Array, center: complex, radius: float, width: float) -> Array:
    """A ring of half width `width` around a circle."""
    return np.abs(np.abs(z - center) - radius) - width


def jaws(z: Array, length: float, angle: float, first: float, last: float) -> Array:
    """Two rods that open by twice `angle`."""
    return np.minimum(*(taper(z, 0, length * np.exp(1j * a), first, last) for a in (angle, -angle)))


# Tips, in the frame of a shaft of half width r that ends at 0 and points along +x; u in [0, 1] opens them.


def grasper(z: Array, r: float, u: float) -> Array:
    """Two blunt jaws."""
    return jaws(z, 3.2 * r, 0.1 + 0.5 * u, 0.6 * r, 0.4 * r)


def scissors(z: Array, r: float, u: float) -> Array:
    """Two pointed blades and their pivot."""
    return np.minimum(jaws(z, 3.8 * r, 0.08 + 0.4 * u, 0.55 * r, 0.1), disc(z, 0.3 * r, 0.9 * r))


def snare(z: Array, r: float, u: float) -> Array:
    """A wire loop, whose inside is tissue."""
    length, height = 8 + 1.2 * r, 4 + 7 * u
    loop = np.abs(np.hypot((z.real - length) / length, z.imag / height) - 1) * height - 1.2
    return np.minimum(loop, taper(z, 0, 4, 1.5, 1.2))


def needle(z: Array, r: float, u: float) -> Array:
    """A thin point."""
    return taper(z, 0, (3 + 2 * u) * r, 0.45 * r, 0.3)


def hook(z: Array, r: float, u: float) -> Array:
    """An L of wire."""
    reach = (2.2 + u) * r
    foot = taper(z, reach, reach + 1.6j * r, 0.35 * r, 0.3 * r)
    return np.minimum(taper(z, 0, reach, 0.4 * r, 0.35 * r), foot)


def ball(z: Array, r: float, u: float) -> Array:
    """A ball electrode on its stalk."""
    return np.minimum(taper(z, 0, 2.2 * r, 0.4 * r, 0.4 * r), disc(z, (2.2 + 0.5 * u) * r, 0.9 * r))


def tube(z: Array, r: float, u: float) -> Array:
    """A suction tube: nothing but a rounded end."""
    return taper(z, 0, (0.8 + u) * r, r, 0.8 * r)


Tip = Callable[[Array, float, float], Array]
TIPS: tuple[Tip, ...] = (grasper, scissors, snare, needle, hook, ball, tube)


# Painting.


def field(rng: Generator, w: Array, scale: float) -> Array:
    """Smooth noise of unit variance, whose blobs are `scale` pixels wide."""
    lattice = rng.normal(size=(24, 24))
    return ndimage.map_coordinates(lattice, [w.imag / scale, w.real / scale], order=3, mode="grid-wrap")


def paint(canvas: Array, color: Array, coverage: Array) -> Array:
    """Lay a color, (3,) or (height, width, 3), over the canvas where coverage is 1."""
    return canvas + coverage[..., None] * (color - canvas)


def inside(distance: Array, softness: float = 1.0) -> Array:
    """Coverage of a shape, with an edge `softness` pixels wide."""
    return np.clip(0.5 - distance / softness, 0, 1)


def relief(distance: Array, radius: float, light: complex) -> Array:
    """Brightness in [0, 1] of a shape as round as a cylinder of `radius`, lit from the side of `light`."""
    slope = np.clip(1 + distance / radius, 0, 1)
    down, right = np.gradient(distance)
    return np.clip(slope * (right * light.real + down * light.imag) + np.sqrt(1 - slope**2), 0, 1)


def mucosa(rng: Generator, w: Array) -> Array:
    """Tissue with blotches, vessels, and in some scenes dye, mucus or fat."""
    base = np.array(TISSUES[rng.integers(len(TISSUES))]) * rng.uniform(0.75, 1.15) + rng.normal(0, 0.03, 3)
    blotches = field(rng, w, rng.uniform(14, 30)), field(rng, w, rng.uniform(3, 7))
    mottle = rng.uniform(0.05, 0.2) * blotches[0] + rng.uniform(0.02, 0.08) * blotches[1]
    canvas = base * (1 + mottle)[..., None]
    for _ in range(rng.integers(1, 3)):
        vessel = np.abs(field(rng, w, rng.uniform(14, 26))) * rng.uniform(7, 12)
        canvas = paint(canvas, base * (0.72, 0.4, 0.45), rng.uniform(0.2, 0.7) * inside(vessel - 0.6))
    for stain in ((0.32, 0.26, 0.48), (0.86, 0.82, 0.70), (0.82, 0.62, 0.22), (0.30, 0.42, 0.18)):
        pool, strength = field(rng, w, rng.uniform(16, 28)), rng.uniform(0.4, 0.85) * (rng.random() < 0.12)
        canvas = paint(canvas, np.array(stain), strength * inside(0.8 - pool, 0.5))
    return canvas


def anatomy(rng: Generator, w: Array, canvas: Array, light: complex) -> Array:
    """What resembles an instrument: folds, strands, polyps, the dark lumen, streaks of light or shade."""

    def place(reach: float) -> complex:
        return complex(*rng.uniform(-reach, reach, 2))

    def raised(canvas: Array, distance: Array, radius: float, tint: Array) -> Array:
        canvas = canvas * (1 - 0.5 * inside(distance - 2, 8))[..., None]
        lit = canvas * tint * (0.7 + 1.5 * relief(distance, radius, light))[..., None]
        return paint(canvas, lit, inside(distance))

    lumen, depth = disc(w, place(40), rng.uniform(8, 24)), rng.uniform(0.5, 0.95) * (rng.random() < 0.4)
    canvas = canvas * (1 - depth * inside(lumen, 14))[..., None]
    for _ in range(rng.integers(0, 4)):
        radius, width = rng.uniform(30, 120), rng.uniform(2, 6)
        fold = arc(w, place(30) + radius * np.exp(2j * np.pi * rng.random()), radius, width)
        fold = fold + rng.uniform(0.5, 1.5) * field(rng, w, 12)
        canvas = raised(canvas, fold, width, rng.normal(1, 0.06, 3))
    for _ in range(rng.integers(0, 2)):
        center, turn, radius = place(36), np.exp(2j * np.pi * rng.random()), rng.uniform(3, 7)
        strand = taper(w, center - 90 * turn, center + 90 * turn, radius, radius)
        waist = 1.2 * field(rng, w, 9) + 1.5 * np.cos(((w - center) * np.conj(turn)).real / 14)
        canvas = raised(canvas, strand + waist, radius, rng.uniform(0.8, 1.5) + rng.normal(0, 0.05, 3))
    for _ in range(rng.integers(0, 4)):
        radius = rng.uniform(4, 13)
        polyp = disc(w, place(40), radius) + field(rng, w, 9)
        canvas = raised(canvas, polyp, radius, rng.normal(1, 0.08, 3))
    for _ in range(rng.integers(0, 2)):
        start, end, radius = place(60), place(60), rng.uniform(2, 8)
        streak = inside(taper(w, start, end, radius, radius * rng.uniform(0.3, 1)), rng.uniform(2, 9))
        canvas = canvas * (1 + rng.choice([-0.6, 0.5]) * streak)[..., None]
    return canvas


def instrument(scene: Generator, frame: Generator, z: Array, canvas: Array, light: complex) -> tuple[Array, Array]:
    """Draw one instrument and its shadow; returns the canvas and the instrument's signed distance."""
    shaft_material = list(MATERIALS)[scene.choice(len(MATERIALS), p=list(MATERIALS.values()))]
    tip_material = STEEL if scene.random() < 0.7 else shaft_material
    tip = TIPS[scene.integers(len(TIPS))]
    half, flare, rings = scene.uniform(5, 10), scene.uniform(1, 1.7), scene.random() < 0.3
    glints, side = scene.uniform(1, 6), scene.uniform(0, 2 * np.pi)

    r = half * frame.uniform(0.85, 1.2)
    joint = complex(*frame.uniform(-24, 24, 2))
    heading = np.exp(1j * (side + frame.normal(0, 0.35)))  # towards the tip
    local = (z - joint) * np.conj(heading)
    local = local + 1j * frame.normal(0, 6e-4) * np.minimum(local.real, 0) ** 2  # a shaft bends a little
    rolled = local if frame.random() < 0.5 else np.conj(local)
    rod = taper(local, -130, 0, r * flare, r)
    head = tip(rolled, r, frame.random())
    whole = np.minimum(rod, head)

    drop = 4 * light + 2
    shadow = ndimage.shift(whole, (-drop.imag, -drop.real), order=1, mode="nearest")
    canvas = canvas * (1 - 0.45 * inside(shadow, 6))[..., None]
    for distance, radius, material in ((head, 0.6 * r, tip_material), (rod, r, shaft_material)):
        lit = relief(distance, radius, light)
        mirror = np.sin(glints * local.imag / r + side) ** 8 + lit**12
        marks = 1 - 0.55 * (rings & (distance is rod) & (np.sin(local.real / 4) > 0.75))
        color = np.array(material.color) * ((0.35 + 0.75 * lit) * marks)[..., None]
        color = color + 0.35 * material.gloss * mirror[..., None]
        canvas = paint(canvas, color, material.opacity * inside(distance))
    return canvas, whole


def wetness(scene: Generator, frame: Generator, w: Array, z: Array, canvas: Array, light: complex) -> Array:
    """Specular highlights, which sit on the tissue, and bubbles, which drift."""
    gloss = field(frame, w, scene.uniform(4, 8)) - scene.uniform(1.7, 2.6)
    canvas = paint(canvas, np.array((1.0, 0.97, 0.93)), 0.9 * inside(-gloss, 0.3))
    for _ in range(frame.poisson(scene.choice([0, 0, 3, 9]))):
        radius = frame.uniform(1.2, 4.5)
        center = complex(*frame.uniform(-44, 44, 2))
        rim = 0.5 * inside(arc(z, center, radius, 0.4)) + 0.12 * inside(disc(z, center, radius))
        canvas = paint(canvas, np.ones(3), rim)
        canvas = paint(canvas, np.ones(3), 0.9 * inside(disc(z, center + 0.5 * radius * light, 0.7)))
    return canvas


def illuminate(scene: Generator, frame: Generator, z: Array, canvas: Array) -> Array:
    """The light of the endoscope: bright in the middle, of the scene's tint."""
    center = complex(*scene.uniform(-18, 18, 2)) + complex(*frame.normal(0, 5, 2))
    falloff = np.exp(-((np.abs(z - center) / scene.uniform(42, 90)) ** 2))
    tint = scene.uniform(0.85, 1.2) * scene.normal(1, 0.03, 3)
    return canvas * (0.38 + 0.77 * falloff)[..., None] * tint * frame.uniform(0.85, 1.15)


def motion_blur(scene: Generator, frame: Generator, canvas: Array) -> Array:
    """Average over the positions of a camera in motion, centered on the position of the mask."""
    speed = scene.choice([0.0, 0.5, 1.2]) * np.exp(2j * np.pi * frame.random()) * frame.random()
    stops = [ndimage.shift(canvas, (k * speed.imag, k * speed.real, 0), order=1, mode="nearest") for k in range(-2, 3)]
    return ndimage.gaussian_filter(np.mean(stops, 0), (scene.uniform(0.3, 0.7),) * 2 + (0,))


def border(rng: Generator, z: Array) -> Array:
    """Signed distance of the visible part of the frame: an octagon, a circle or everything."""
    straight, radius = np.maximum(np.abs(z.real), np.abs(z.imag)), rng.uniform(43, 49)
    diagonal = (np.abs(z.real) + np.abs(z.imag)) / rng.uniform(1.25, 1.6)
    shapes = np.maximum(straight, diagonal) - radius, np.abs(z) - radius - 5, straight - SIZE
    return shapes[rng.choice(3, p=[0.5, 0.25, 0.25])]


def overlay(scene: Generator, frame: Generator, canvas: Array) -> Array:
    """Lines of text as the video processor prints them, in the scene's place and color."""
    color = np.array(((1.0, 1.0, 1.0), (1.0, 0.9, 0.2), (0.3, 1.0, 0.5))[scene.integers(3)])
    lines, top, left = scene.integers(0, 4), scene.choice([2, 70]), scene.choice([2, 60])
    for row in range(lines):
        text = frame.choice(list(GLYPHS), size=scene.integers(3, 9))
        digits = np.array([[int(d) for d in GLYPHS[c]] for c in text])  # (characters, 5)
        bits = np.pad(digits[..., None] >> np.array([2, 1, 0]) & 1, ((0, 0), (0, 0), (0, 1)))
        stamp = np.zeros((SIZE, SIZE))
        y, x = top + 7 * row, left
        stamp[y : y + 5, x:] = np.pad(np.hstack(list(bits)), ((0, 0), (0, SIZE)))[:, : SIZE - x]
        canvas = paint(canvas, color, 0.85 * stamp)
    return canvas


def render(scene: Generator, frame: Generator) -> tuple[Array, Array]:
    """One frame: image (3, SIZE, SIZE) and mask (SIZE, SIZE), both uint8."""
    rows, columns = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    z = columns + 1j * rows
    drift, turn = complex(*frame.normal(0, 9, 2)), np.exp(1j * frame.normal(0, 0.25))
    w = (z - drift) * turn / frame.uniform(0.85, 1.2)  # where the camera's pixels lie on the tissue
    light = 0.8 * np.exp(2j * np.pi * scene.random())

    canvas = anatomy(scene, w, mucosa(scene, w), light)
    canvas = wetness(scene, frame, w, z, canvas, light)
    distances = []
    for _ in range(scene.choice([1, 2], p=[0.65, 0.35])):
        canvas, distance = instrument(scene, frame, z, canvas, light)
        distances.append(distance)
    canvas = motion_blur(scene, frame, illuminate(scene, frame, z, canvas))
    visible = border(scene, z)
    canvas = overlay(scene, frame, canvas * inside(visible)[..., None])
    canvas = canvas + frame.normal(0, scene.uniform(0.005, 0.03), canvas.shape)
    image = np.round(255 * np.clip(canvas, 0, 1)).astype(np.uint8)
    mask = (np.min(distances, axis=0) < 0) & (visible < 0)
    return image.transpose(2, 0, 1), mask.astype(np.uint8)


class PhantomEndoscopy(Recipe):
    """240 frames of 64 scenes."""

    name: ClassVar[str] = "phantom_endoscopy"
    summary: ClassVar[str] = "synthetic endoscopy frames, instrument against background, generated"

    def info(self) -> DatasetInfo:
        """Name, classes and origin."""
        return DatasetInfo(
            name=self.name,
            title="Phantom endoscopy",
            modality="endoscopy, synthetic",
            classes=("background", "instrument"),
            licence="MIT",
            source=f"generated by semiseg, seed {SEED}",
            grouping="scene",
            unit="pixels",
            synthetic=True,
        )

    def items(self) -> list[int]:
        """Indices of frames."""
        return list(range(len(FRAMES)))

    def load(self, item: int) -> Case:
        """Draw one frame, from its own seeds alone."""
        scene, frame = FRAMES[item]
        # The frame counts from 1: trailing zeros do not change a seed.
        seeds = [SEED, scene], [SEED, scene, frame + 1]
        image, mask = render(*map(np.random.default_rng, seeds))
        group = f"scene{scene + 1:02}"
        return Case(f"{group}_frame{frame + 1}", group, image, mask, (1.0, 1.0))
