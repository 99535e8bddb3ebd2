"""Synthetic cardiac MR: short-axis stacks of beating hearts, drawn from a seed, with exact masks.

A slice is the complex plane: a point is x + iy in mm from the center of the image, so that moving is adding
and turning is multiplying. Shapes are signed distances in mm, negative inside. The heart and its surroundings
come from the patient's generator, rewound for both phases; breathing and noise from the acquisition's.
"""

from typing import ClassVar, NamedTuple

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from semiseg.data.recipe import Recipe
from semiseg.data.store import Case, DatasetInfo

SEED = 20241
SIZE = 80
PATIENTS = 20
PHASES = ("ED", "ES")
RIGHT, MYOCARDIUM, LEFT = 1, 2, 3
ABSENT = -9.0  # the radius of what a slice does not cut
SUBSLICES = (-0.33, 0.0, 0.33)  # a thick slice is the mean of thin ones

Array = np.ndarray


class Heart(NamedTuple):
    """The shape of a heart at end diastole, in mm; positions along its axis run from 0 (base) to 1 (apex)."""

    length: float
    cavity: float  # radius of the left ventricle
    wall: float
    ejection: float  # share of the radius that is lost at end systole
    right: float  # radius of the right ventricle
    right_end: float  # where along the axis the right ventricle ends
    taper: float
    center: complex
    tilt: complex
    septum: complex  # unit vector from the left to the right ventricle
    ripple: Array  # (2,) complex: departures of the contours from circles
    papillary: Array  # (2,) complex: place of the papillary muscles inside a unit cavity


class Sections(NamedTuple):
    """Signed distances of what one slice cuts."""

    cavity: Array
    outer: Array
    right: Array
    papillary: Array


class Tissues(NamedTuple):
    """Signal of each tissue in one patient's scan."""

    blood: float
    right_blood: float
    muscle: float
    fat: float
    lung: float
    liver: float
    stomach: float


def draw_heart(rng: Generator, length: float) -> Heart:
    """A healthy, dilated or hypertrophic heart, or one with an enlarged right ventricle."""
    condition = rng.integers(5)
    dilated, thick, right_sided = condition == 1, condition == 2, condition == 3
    return Heart(
        length=length,
        cavity=rng.uniform(19, 25) + 7 * dilated - 3 * thick,
        wall=rng.uniform(6, 8.5) - dilated + 5 * thick,
        ejection=rng.uniform(0.28, 0.42) - 0.2 * dilated,
        right=rng.uniform(25, 30) + 6 * right_sided,
        right_end=rng.uniform(0.7, 0.92),
        taper=rng.uniform(2, 3.5),
        center=complex(*rng.uniform(-7, 7, 2)),
        tilt=complex(*rng.normal(0, 7, 2)),
        septum=np.exp(1j * (np.pi + rng.normal(0, 0.3))),
        ripple=rng.normal(0, 0.035, (2, 2)) @ (1, 1j),
        papillary=rng.uniform(0.4, 0.65, 2) * np.exp(1j * (rng.normal((0.8, -0.8), 0.25))),
    )


def draw_tissues(rng: Generator) -> Tissues:
    """The contrast of one patient's scan."""
    blood = rng.uniform(0.64, 0.74)
    return Tissues(
        blood=blood,
        right_blood=blood * rng.uniform(0.85, 1.1),
        muscle=blood * rng.uniform(0.32, 0.42),
        fat=rng.uniform(0.75, 0.95),
        lung=rng.uniform(0.04, 0.1),
        liver=blood * rng.uniform(0.45, 0.65),
        stomach=rng.choice([0.1, 0.4, 0.8]),
    )


def field(rng: Generator, z: Array, scale: float) -> Array:
    """Smooth noise of unit variance, whose blobs are `scale` mm wide."""
    lattice = rng.normal(size=(32, 32))
    return ndimage.map_coordinates(lattice, [z.imag / scale, z.real / scale], order=3, mode="grid-wrap")


def disc(z: Array, center: complex, radius: float) -> Array:
    """Signed distance of a disc."""
    return np.abs(z - center) - radius


def shell(radius: float, position: float, end: float, taper: float) -> float:
    """Radius at a position along a ventricle that is closed at `end` and open at 0."""
    return radius * (1 - (position / end) ** taper) ** 0.5 if 0 <= position < end else ABSENT


def cut(heart: Heart, z: Array, height: float, phase: int) -> Sections:
    """Cut the heart `height` mm below its base at end diastole.

    At end systole the cavities are narrower, the base has moved towards the apex, and the wall is thicker by
    as much as keeps its cross-section: (r + w)² − r² is the same in both phases.
    """
    squeeze = 1 - heart.ejection * phase
    base = 0.35 * heart.ejection * phase * heart.length
    position = (height - base) / (heart.length - base)
    narrow = heart.cavity * squeeze
    wide = np.sqrt((heart.cavity + heart.wall) ** 2 - heart.cavity**2 + narrow**2)
    cavity = shell(narrow, position, 0.92, heart.taper)
    outer = shell(wide, position, 1.0, heart.taper)
    right = shell(heart.right * (1 - 0.5 * heart.ejection * phase), position, heart.right_end, 2)

    center = heart.center + heart.tilt * (height / heart.length - 0.5)
    turned = (z - center) * np.conj(heart.septum)
    direction = turned / np.maximum(np.abs(turned), 1e-9)
    ripple = 1 + sum((c * direction ** (k + 2)).real for k, c in enumerate(heart.ripple))
    from_axis = np.abs(turned) / ripple
    flank = disc(turned, 0.72 * max(outer, 0) + 2, right) + 2 * (ripple - 1) * heart.right
    in_reach = cavity if 0.15 < position < 0.75 else 0.0
    papillary = np.min([disc(turned, -p * cavity, 0.2 * in_reach) for p in heart.papillary], axis=0)
    right_side = np.maximum(flank, outer + 1 - from_axis)
    return Sections(from_axis - cavity, from_axis - outer, right_side, papillary)


def inside(distance: Array, softness: float = 1.6) -> Array:
    """Coverage of a shape, with an edge `softness` mm wide."""
    return np.clip(0.5 - distance / softness, 0, 1)


def surroundings(rng: Generator, z: Array, heart: Heart, tissues: Tissues) -> Array:
    """Lung, chest wall, liver, stomach and vessels, laid out around the heart as the septum points."""
    turned = (z - heart.center) * np.conj(heart.septum)  # chest wall to the right, lung to the left

    def lay(signal: Array, value: float | Array, distance: Array, softness: float = 2) -> Array:
        return signal + inside(distance, softness) * (value - signal)

    def place(near: float, far: float, angle: float, spread: float) -> complex:
        return rng.uniform(near, far) * np.exp(1j * rng.normal(angle, spread))

    wave = field(rng, z, 16)
    signal = tissues.muscle * (1 + 0.25 * field(rng, z, 7))
    signal = signal + 0.3 * inside(-wave, 1) * (tissues.fat - tissues.muscle)
    signal = lay(signal, tissues.lung, rng.uniform(0, 24) + turned.real + 5 * wave)
    for _ in range(rng.integers(3, 9)):  # vessels of the lung
        signal = lay(signal, tissues.blood, disc(turned, place(42, 80, np.pi, 0.6), rng.uniform(1, 4)))
    ribs = np.sin(turned.real / rng.uniform(2.5, 4) + field(rng, z, 20))
    wall = np.where(ribs > 0.2, tissues.fat, tissues.muscle)
    signal = lay(signal, wall, rng.uniform(42, 58) - turned.real + 3 * wave)
    side = rng.uniform(26, 44)
    liver = tissues.liver * (1 + 0.06 * field(rng, z, 4))
    signal = lay(signal, liver, side - turned.imag - 0.3 * turned.real + 5 * field(rng, z, 22))
    for _ in range(rng.integers(1, 5)):  # vessels of the liver
        signal = lay(signal, tissues.blood, disc(turned, place(44, 62, 1.3, 0.4), rng.uniform(1.5, 4)))
    stomach = disc(turned, place(48, 62, 2.2, 0.25), rng.uniform(8, 20)) + 3 * wave
    signal = lay(lay(signal, tissues.muscle, stomach - 3), tissues.stomach, stomach)
    aorta = disc(turned, place(46, 60, -2.4, 0.3), rng.uniform(9, 13))
    return lay(lay(signal, tissues.muscle, aorta - 2), tissues.blood, aorta)


def great_vessels(rng: Generator, signal: Array, z: Array, heart: Heart, tissues: Tissues, height: float) -> Array:
    """Atria and the aortic root, which lie above the base and look like ventricles without a wall."""
    above = inside(np.full_like(signal, height), 8.0)
    for reach, angle, low, high in ((4, 0, 11, 15), (30, 0.3, 16, 24), (16, 3, 16, 24)):
        center = heart.center + heart.septum * (reach + 3 * rng.normal()) * np.exp(1j * angle)
        vessel = disc(z, center, rng.uniform(low, high)) + 2 * field(rng, z, 12)
        signal = signal + above * inside(vessel - 2.5) * (tissues.muscle - signal)
        signal = signal + above * inside(vessel) * (tissues.blood * rng.uniform(0.85, 1.1) - signal)
    return signal


def thin_slice(rng: Generator, z: Array, heart: Heart, tissues: Tissues, height: float, phase: int) -> Array:
    """Signal of an infinitely thin slice, (SIZE, SIZE)."""
    drift = z + 0.25 * height  # what surrounds the heart changes slowly from slice to slice
    signal = surroundings(rng, drift - 10, heart, tissues)
    signal = great_vessels(rng, signal, z, heart, tissues, height)
    sections = cut(heart, z, height, phase)
    flow, fat, sponge = field(rng, drift, 9), field(rng, drift, 14), field(rng, drift, 4)
    whole = np.minimum(sections.outer, sections.right - 3)
    signal = signal + 0.9 * inside(whole - 2.5 - 2.5 * fat) * (tissues.fat - signal)
    signal = signal + inside(whole) * (tissues.muscle * (1 + 0.08 * sponge) - signal)
    trabeculae = np.where(sections.right > -7, 0.3 * inside(0.6 - sponge, 0.8), 0)
    right_blood = tissues.right_blood * (1 + 0.07 * flow) * (1 - trabeculae)
    signal = signal + inside(sections.right) * (right_blood - signal)
    signal = signal + inside(sections.cavity) * (tissues.blood * (1 + 0.07 * flow) - signal)
    return signal + inside(sections.papillary) * inside(sections.cavity) * (tissues.muscle * 1.1 - signal)


def scan(signal: Array, patient: Generator, acquisition: Generator) -> Array:
    """What the scanner makes of a stack: coil sensitivity, blur, window, Rician noise. Returns uint8."""
    rows, columns = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    slope, bend = patient.normal(0, 0.1, 2), patient.normal(0, 0.06)
    coil = np.exp(slope[0] * rows + slope[1] * columns + bend * (rows**2 + columns**2))
    signal = ndimage.gaussian_filter(signal * coil, (0, *[patient.uniform(0.4, 0.8)] * 2))
    signal = signal ** patient.uniform(0.95, 1.1) * patient.uniform(0.95, 1.1)
    noise = acquisition.normal(0, patient.uniform(0.015, 0.035), (2, *signal.shape))
    return np.round(255 * np.clip(np.hypot(signal + noise[0], noise[1]), 0, 1)).astype(np.uint8)


def acquire(patient: int, phase: int) -> tuple[Array, Array, tuple[float, float, float]]:
    """A stack, base to apex: image (1, slices, SIZE, SIZE), mask (slices, SIZE, SIZE) and spacing in mm."""
    rng = np.random.default_rng([SEED, patient])
    # The phase counts from 1: trailing zeros do not change a seed.
    acquisition = np.random.default_rng([SEED, patient, phase + 1])
    count, thickness = int(rng.integers(10, 13)), round(rng.uniform(7, 9.5), 1)
    pixel = round(rng.uniform(1.4, 1.8), 2)
    heart = draw_heart(rng, thickness * (count - rng.uniform(1.8, 3)))
    tissues = draw_tissues(rng)
    anatomy = [SEED, patient, 0, 1]  # rewound for every thin slice, so that a stack shows one anatomy
    first = -thickness * rng.uniform(0.6, 1.2)

    rows, columns = (np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2) * pixel
    signals, masks = [], []
    for height in first + thickness * np.arange(count):
        breath = complex(*acquisition.normal(0, 1.3, 2))  # every slice is another breath hold
        z = columns + 1j * rows + breath
        thin = [
            thin_slice(np.random.default_rng(anatomy), z, heart, tissues, height + thickness * s, phase)
            for s in SUBSLICES
        ]
        signals.append(np.mean(thin, axis=0))
        sections = cut(heart, z, height, phase)
        shapes = sections.cavity, sections.outer, sections.right
        masks.append(np.select([shape < 0 for shape in shapes], [LEFT, MYOCARDIUM, RIGHT]))
    image = scan(np.stack(signals), rng, acquisition)
    return image[None], np.stack(masks).astype(np.uint8), (thickness, pixel, pixel)


class PhantomCardiac(Recipe):
    """20 patients at end diastole and end systole."""

    name: ClassVar[str] = "phantom_cardiac"
    summary: ClassVar[str] = "synthetic short-axis cardiac MR, both ventricles and the myocardium, generated"

    def info(self) -> DatasetInfo:
        """Name, classes and origin."""
        return DatasetInfo(
            name=self.name,
            title="Phantom cardiac",
            modality="cardiac MR, synthetic",
            classes=("background", "right ventricle", "myocardium", "left ventricle"),
            licence="MIT",
            source=f"generated by semiseg, seed {SEED}",
            grouping="patient",
            unit="mm",
            synthetic=True,
        )

    def items(self) -> list[int]:
        """Indices of stacks."""
        return list(range(PATIENTS * len(PHASES)))

    def load(self, item: int) -> Case:
        """Draw one stack, from its own seeds alone."""
        patient, phase = divmod(item, len(PHASES))
        image, mask, spacing = acquire(patient, phase)
        group = f"patient{patient + 1:02}"
        return Case(f"{group}_{PHASES[phase]}", group, image, mask, spacing)
