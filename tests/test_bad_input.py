"""Every way in which people's files are broken: one line per problem, all in one attempt, and nothing lost."""

import gzip
import io
import os
import re
import resource
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from semiseg.data import budget
from semiseg.data import prepare as preparation
from semiseg.data.prepare import prepare
from semiseg.data.recipe import Recipe
from semiseg.data.source import open_recipe
from semiseg.data.store import Dataset
from semiseg.data_prep.image_folder import ImageFolder
from semiseg.data_prep.nifti_folder import NiftiFolder
from semiseg.data_prep.ssl4mis import Ssl4misFolder
from semiseg.errors import UserError, UserErrors

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 255, (24, 32), np.uint8)
MASK = (NOISE > 128).astype(np.uint8)
AXIAL = np.diag([1.0, 1.0, 3.0, 1.0])
VOXELS = RNG.normal(100, 20, (6, 7, 8)).astype(np.float32)
LABELS = (VOXELS > 100).astype(np.uint8)
VOLUME = RNG.random((5, 6, 7), np.float32)

Damage = Callable[[Path, Path], Any]  # what is done to the image and the mask of one case


def picture(array: Any, mode: str | None = None, suffix: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    (image.convert(mode) if mode else image).save(file, suffix, **options)
    return file.getvalue()


def nifti(path: Path, array: np.ndarray, affine: np.ndarray = AXIAL) -> None:
    nib.save(nib.Nifti1Image(array, affine), path)


def hdf5(path: Path, **arrays: Any) -> None:
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file[key] = array


def cut(path: Path, share: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def with_voxel(value: float, array: np.ndarray = VOXELS) -> np.ndarray:
    changed = array.astype(np.float32)
    changed[0, 0, 0] = value
    return changed


def smoothed() -> np.ndarray:
    return np.asarray(Image.fromarray(MASK * 255).resize((64, 48)).resize((32, 24), Image.Resampling.BILINEAR))


def colored(name: str) -> Image.Image:
    paletted = Image.fromarray(MASK * 9)
    return paletted.convert("P") if name == "P" else paletted


def transparent(array: np.ndarray) -> np.ndarray:
    return np.dstack([array, array, array, 255 - array])


def header(path: Path, **fields: Any) -> None:
    """Unpack a NIfTI file and change its header to what nibabel would not write."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    changed = nib.Nifti1Header(bytes(content[:348]), check=False)
    for key, value in fields.items():
        changed[key] = value
    content[:348] = changed.binaryblock
    path.with_suffix("").write_bytes(content)
    path.unlink()


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def replaced(path: Path, other: str) -> Path:
    return path.rename(path.with_name(other))


# For each: the damage, which of the two files is to be named, and what the line must say.
PICTURES: dict[str, tuple[Damage, str, str]] = {
    "truncated PNG": (lambda i, m: cut(i), "image", "truncated.* intact copy"),
    "truncated mask": (lambda i, m: cut(m), "mask", "truncated.* intact copy"),
    "truncated JPEG": (
        lambda i, m: (i.write_bytes(picture(NOISE, suffix="JPEG")), cut(i)),
        "image",
        "truncated.* intact copy",
    ),
    "truncated TIFF": (lambda i, m: (i.write_bytes(picture(NOISE, suffix="TIFF")), cut(i)), "image", "intact copy"),
    "empty image": (lambda i, m: i.write_bytes(b""), "image", "not a readable image"),
    "empty mask": (lambda i, m: m.write_bytes(b""), "mask", "not a readable image"),
    "text as PNG": (lambda i, m: i.write_text("<html>404</html>"), "image", "not a readable image"),
    "header alone": (lambda i, m: i.write_bytes(picture(NOISE)[:30]), "image", "not a readable image"),
    "wrong ending": (lambda i, m: replaced(i, "bad.webp"), "bad.webp", "is none of .png.*convert"),
    "both of a wrong ending": (
        lambda i, m: (replaced(i, "bad.gif"), replaced(m, "bad.gif")),
        "bad.gif",
        "is none of .png.*convert",
    ),
    "animated GIF": (
        lambda i, m: i.write_bytes(
            picture(NOISE, suffix="GIF", save_all=True, append_images=[Image.fromarray(255 - NOISE)])
        ),
        "image",
        "holds 2 pages or frames; save each",
    ),
    "multi-page TIFF": (
        lambda i, m: i.write_bytes(
            picture(NOISE, suffix="TIFF", save_all=True, append_images=[Image.fromarray(NOISE)])
        ),
        "image",
        "holds 2 pages or frames; save each",
    ),
    "transparent image": (lambda i, m: i.write_bytes(picture(transparent(NOISE))), "image", "flatten it"),
    "transparent mask": (lambda i, m: m.write_bytes(picture(transparent(MASK))), "mask", "flatten it"),
    "CMYK": (lambda i, m: i.write_bytes(picture(NOISE, "CMYK", "JPEG")), "image", "CMYK .*save it as grey or RGB"),
    "LAB colors": (lambda i, m: i.write_bytes(picture(NOISE, "LAB", "TIFF")), "image", "LAB .*save it as grey or RGB"),
    "zero-size picture": (
        lambda i, m: i.write_bytes(picture(NOISE).replace(b"\0\0\0\x20\0\0\0\x18", bytes(8), 1)),
        "image",
        "not a readable image",
    ),
    "picture of a billion pixels": (
        lambda i, m: i.write_bytes(picture(NOISE).replace(b"\0\0\0\x20\0\0\0\x18", b"\0\1\0\0\0\1\0\0", 1)),
        "image",
        "not a readable image",
    ),
    "mask of another size": (lambda i, m: m.write_bytes(picture(MASK[1:])), "image", "24 × 32, its mask.*23 × 32"),
    "mask turned by 90°": (lambda i, m: m.write_bytes(picture(MASK.T)), "image", "24 × 32, its mask.*32 × 24"),
    "unexpected mask value": (lambda i, m: m.write_bytes(picture(MASK * 7)), "mask", "values 7, but.*name every class"),
    "smooth edges": (
        lambda i, m: m.write_bytes(picture(smoothed())),
        "mask",
        r"between .* add --threshold 128 \(greys from 128 on are foreground\)",
    ),
    "JPEG mask": (
        lambda i, m: m.write_bytes(picture(MASK * 255, suffix="JPEG", quality=60)),
        "mask",
        "add --threshold 128 ",
    ),
    "16-bit mask": (lambda i, m: m.write_bytes(picture(MASK.astype(np.uint16) * 65535)), "mask", "values 65535, but"),
    "mask of fractions": (
        lambda i, m: m.write_bytes(picture(MASK * np.float32(0.5), suffix="TIFF")),
        "mask",
        "values 0.5, but",
    ),
    "palette mask beyond the classes": (
        lambda i, m: m.write_bytes(picture(colored("P"))),
        "mask",
        "but the classes are",
    ),
    "mask in colors": (
        lambda i, m: m.write_bytes(picture(np.dstack([MASK * 255, MASK, MASK]))),
        "mask",
        "colour mask; save it as",
    ),
    "upside down by EXIF": (
        lambda i, m: i.write_bytes(picture(NOISE, exif=turned(3))),
        "image",
        "orientation 3.*save both upright",
    ),
    "mirrored by EXIF": (
        lambda i, m: m.write_bytes(picture(MASK, exif=turned(2))),
        "image",
        r"otherwise \(2\).*save both upright",
    ),
    "mask drawn on the sideways photo": (
        lambda i, m: i.write_bytes(picture(NOISE, exif=turned(6))),
        "image",
        "32 × 24, its mask.*24 × 32; provide a mask .* as viewers show it",
    ),
    "no mask": (lambda i, m: m.unlink(), "image", "there is no bad.png for it in .*masks; add it"),
    "no image": (lambda i, m: i.unlink(), "mask", "there is no bad.png for it in .*images; add it"),
    "two images": (lambda i, m: shutil.copy(i, i.with_suffix(".jpg")), "bad.jpg", "bad.png beside it.*keep one"),
    "two masks": (lambda i, m: shutil.copy(m, m.with_suffix(".bmp")), "bad.bmp", "bad.png beside it.*keep one"),
    "capitals differ between image and mask": (
        lambda i, m: replaced(i, "BAD.png"),
        "BAD.png",
        "its mask is called bad.png; name both alike",
    ),
    "broken link": (lambda i, m: (i.unlink(), i.symlink_to("nowhere.png")), "image", "link to a file that is not"),
    "link to itself": (lambda i, m: (m.unlink(), m.symlink_to(m.name)), "mask", "not a readable image"),
    "folder for an image": (lambda i, m: (i.unlink(), i.mkdir()), "image", "is a folder where a file"),
    "folder for a mask": (lambda i, m: (m.unlink(), m.mkdir()), "mask", "is a folder where a file"),
}

VOLUMES: dict[str, tuple[Damage, str, str]] = {
    "truncated": (lambda i, m: cut(i), "image", "truncated.* intact copy"),
    "truncated by a byte": (lambda i, m: cut(i, 0.999), "image", "truncated.* intact copy"),
    "truncated label": (lambda i, m: cut(m), "mask", "truncated.* intact copy"),
    "empty": (lambda i, m: i.write_bytes(b""), "image", "not a readable NIfTI"),
    "text": (lambda i, m: i.write_text("no volume"), "image", "not a readable NIfTI"),
    "packed by another program": (lambda i, m: i.write_bytes(b"PK\3\4" + bytes(99)), "image", "not a readable NIfTI"),
    "wrong ending": (lambda i, m: replaced(i, "bad.mha"), "bad.mha", "is none of .nii.gz.*convert"),
    "label flipped by its header": (
        lambda i, m: nifti(m, LABELS, AXIAL * [[-1], [1], [1], [1]]),
        "mask",
        "mm off its image .*resample",
    ),
    "label moved by its header": (
        lambda i, m: nifti(m, LABELS, AXIAL + np.eye(4)[:, [3]] @ np.eye(4)[[3]] + np.eye(4, k=3) * 9),
        "mask",
        "mm off its image .*resample",
    ),
    "label of another voxel size": (lambda i, m: nifti(m, LABELS, np.eye(4)), "mask", "mm off its image .*resample"),
    "label of another shape": (lambda i, m: nifti(m, LABELS[1:]), "image", "6 × 7 × 8, its mask .*5 × 7 × 8"),
    "NaN": (lambda i, m: nifti(i, with_voxel(np.nan)), "image", "1 of its values are NaN.*replace them"),
    "infinity": (lambda i, m: nifti(i, with_voxel(-np.inf)), "image", "1 of its values are NaN or inf.*replace them"),
    "NaN in the label": (lambda i, m: nifti(m, with_voxel(np.nan, LABELS)), "mask", "values nan, but"),
    "fraction in the label": (lambda i, m: nifti(m, with_voxel(0.5, LABELS)), "mask", "0.5.* add --threshold 0.5 "),
    "negative label": (lambda i, m: nifti(m, with_voxel(-1, LABELS)), "mask", "values -1, but"),
    "label with channels": (lambda i, m: nifti(m, np.stack([LABELS] * 2, -1)), "mask", "2 channels; save it as one"),
    "five axes": (lambda i, m: nifti(i, VOXELS[..., None, None]), "image", "5 axes; save it"),
    "two axes": (lambda i, m: nifti(i, VOXELS[0]), "image", "2 axes; save it"),
    "zero-size volume": (
        lambda i, m: (nifti(i, VOXELS[:0]), nifti(m, LABELS[:0])),
        "image",
        "; ",
    ),
    "complex voxels": (lambda i, m: nifti(i, VOXELS.astype(np.complex64)), "image", "complex numbers"),
    "color voxels": (
        lambda i, m: nifti(i, np.zeros((6, 7, 8), [("R", "u1"), ("G", "u1"), ("B", "u1")])),
        "image",
        "not a readable NIfTI",
    ),
    "header without voxel size": (
        lambda i, m: header(i, qform_code=0, sform_code=0, pixdim=0),
        "mask",
        "gives no place",
    ),
    "header with NaN": (lambda i, m: header(i, srow_x=np.nan), "bad.nii", "; "),
    "header of zeros": (lambda i, m: header(i, srow_x=0, srow_y=0, srow_z=0), "bad.nii", "; "),
    "header of another size": (lambda i, m: header(i, dim=[3, 60, 70, 80, 1, 1, 1, 1]), "bad.nii", "not a readable"),
    "header of no voxels": (lambda i, m: header(i, dim=[3, 0, 7, 8, 1, 1, 1, 1]), "bad.nii", "; "),
    "damaged inside": (lambda i, m: flip(i, -6), "image", "intact copy"),
    "no label": (lambda i, m: m.unlink(), "image", "there is no bad.nii.gz for it in .*labelsTr; add it"),
    "no image": (lambda i, m: i.unlink(), "mask", "there is no bad.nii.gz for it in .*imagesTr; add it"),
    "packed and unpacked": (lambda i, m: nifti(i.with_name("bad.nii"), VOXELS), "bad.nii", "bad.nii.gz beside it"),
    "broken link": (lambda i, m: (i.unlink(), i.symlink_to("nowhere.nii.gz")), "image", "link to a file that is not"),
    "folder": (lambda i, m: (m.unlink(), m.mkdir()), "mask", "is a folder where a file"),
}

HDF5: dict[str, tuple[Damage, str, str]] = {
    "truncated": (lambda i, m: cut(i), "image", "truncated.* intact copy"),
    "empty": (lambda i, m: i.write_bytes(b""), "image", "not a readable HDF5"),
    "text": (lambda i, m: i.write_text("no volume"), "image", "not a readable HDF5"),
    "no label": (lambda i, m: hdf5(i, image=VOLUME), "image", "holds no label; expected the keys"),
    "neither": (lambda i, m: hdf5(i, volume=VOLUME), "image", "no image and no label; expected the keys"),
    "label of another shape": (lambda i, m: hdf5(i, image=VOLUME, label=VOLUME[1:] > 1), "image", "export the file"),
    "NaN": (lambda i, m: hdf5(i, image=with_voxel(np.nan, VOLUME), label=VOLUME > 1), "image", "NaN .*replace them"),
    "unexpected label": (lambda i, m: hdf5(i, image=VOLUME, label=np.full(VOLUME.shape, 9)), "image", "values 9, but"),
    "fractions": (lambda i, m: hdf5(i, image=VOLUME, label=VOLUME), "image", "the mask holds the values 0"),
    "a slice": (lambda i, m: hdf5(i, image=VOLUME[0], label=VOLUME[0] > 1), "image", "2 axes instead of 3; data/ is"),
    "zero-size volume": (lambda i, m: hdf5(i, image=VOLUME[:0], label=VOLUME[:0]), "image", "export the file again"),
    "text for an image": (lambda i, m: hdf5(i, image="picture", label=VOLUME), "image", ""),
    "a group for an image": (
        lambda i, m: hdf5(i, **{"image/x": VOLUME, "label": VOLUME}),
        "image",
        "not a readable",
    ),
    "folder": (lambda i, m: (i.unlink(), i.mkdir()), "image", "is a folder where a file"),
    "broken link": (lambda i, m: (i.unlink(), i.symlink_to("nowhere.h5")), "image", "link to a file that is not"),
}


class Source:
    """A folder of good cases in the layout of one recipe, and what was prepared from it."""

    def __init__(self, kind: type[Recipe], root: Path, cases: tuple[str, ...] = ("a", "bad", "c")) -> None:
        self.kind, self.folder, self.out = kind, root / "mine", root / "out"
        for case in cases:
            image, mask = self.files(case)
            image.parent.mkdir(parents=True, exist_ok=True)
            mask.parent.mkdir(parents=True, exist_ok=True)
            if kind is ImageFolder:
                image.write_bytes(picture(NOISE))
                mask.write_bytes(picture(MASK))
            elif kind is NiftiFolder:
                nifti(image, VOXELS)
                nifti(mask, LABELS)
            else:
                hdf5(image, image=VOLUME, label=(VOLUME > 0.5).astype(np.uint8))
                (self.folder / "classes.txt").write_text("background\nRV\nmyocardium\nLV\n")
        self.path = self.prepare()
        self.before = self.path.read_bytes()

    def files(self, case: str) -> tuple[Path, Path]:
        """The image and the mask of a case."""
        if self.kind is ImageFolder:
            return self.folder / f"images/{case}.png", self.folder / f"masks/{case}.png"
        if self.kind is NiftiFolder:
            return self.folder / f"imagesTr/{case}.nii.gz", self.folder / f"labelsTr/{case}.nii.gz"
        return (self.folder / f"data/{case}.h5",) * 2

    def prepare(self) -> Path:
        """Prepare the folder as the command line does."""
        return prepare(open_recipe(self.kind, self.folder, self.out / "raw"), self.out, jobs=1)[0]

    def complaints(self) -> list[str]:
        """What is said about the source; what was prepared before must be as it was, and nothing beside it."""
        with pytest.raises(UserError) as caught:
            self.prepare()
        assert self.path.read_bytes() == self.before
        assert os.listdir(self.out) == [self.path.name]
        messages = caught.value.messages if isinstance(caught.value, UserErrors) else [str(caught.value)]
        for message in messages:
            assert "\n" not in message
            place, colon, rest = message.partition(": ")
            assert Path(place).is_absolute() or place == "mine", message
            assert colon
            assert len(rest.partition("; ")[2]) > 8 or len(rest.partition(". Expected")[2]) > 8, f"no remedy: {message}"
        return messages


KINDS: list[tuple[type[Recipe], dict[str, tuple[Damage, str, str]]]] = [
    (ImageFolder, PICTURES),
    (NiftiFolder, VOLUMES),
    (Ssl4misFolder, HDF5),
]


@pytest.mark.parametrize(
    ("kind", "damage", "named", "said"),
    [pytest.param(kind, *case, id=f"{kind.name}: {name}") for kind, damages in KINDS for name, case in damages.items()],
)
def test_a_malformed_file_is_named_with_its_remedy(
    kind: type[Recipe], damage: Damage, named: str, said: str, tmp_path: Path
) -> None:
    source = Source(kind, tmp_path)
    image, mask = source.files("bad")
    damage(image, mask)
    (message,) = source.complaints()
    place = {"image": image, "mask": mask}.get(named) or next(source.folder.rglob(named))
    assert message.startswith(f"{place}: ")
    assert re.search(said, message)


@pytest.mark.parametrize(("kind", "damages"), KINDS, ids=[kind.name for kind, _ in KINDS])
def test_all_bad_files_are_reported_in_one_attempt(
    kind: type[Recipe], damages: dict[str, tuple[Damage, str, str]], tmp_path: Path
) -> None:
    cases = [f"case{number}" for number in range(len(damages))]
    source = Source(kind, tmp_path, (*cases, "fine"))
    for case, (damage, _, _) in zip(cases, damages.values(), strict=True):
        # The damages are written for a case called bad.
        for file, other in {
            path: path.with_name(path.name.replace(case, "bad")) for path in source.files(case)
        }.items():
            file.rename(other)
        damage(*source.files("bad"))
        for folder in {path.parent for path in source.files("bad")}:
            for file in folder.iterdir():
                if file.name.lower().startswith("bad."):
                    name = re.sub("(?i)^bad", case.upper() if file.name.startswith("BAD") else case, file.name)
                    file.rename(folder / name)
    places = [message.partition(": ")[0].lower() for message in source.complaints()]
    counts = [re.search(r"\(one of (\d+), like", place) for place in places]  # others with the same problem
    assert sum(int(count[1]) if count else 1 for count in counts) == len(cases)
    assert set(re.findall(r"case\d+", " ".join(places))) <= set(cases)


# For each: a file of the source, its content, and what the only line about it must say.
TABLES: list[tuple[type[Recipe], str, bytes, str]] = [
    (ImageFolder, "classes.txt", b"", "names \\[\\]; write 2 to 256"),
    (ImageFolder, "classes.txt", b"only\n", "names \\['only'\\]; write 2 to 256"),
    (ImageFolder, "classes.txt", "Hintergrund\nGefäß\n".encode("latin-1"), "UTF-8"),
    (ImageFolder, "classes.txt", "background\npolyp\n".encode("utf-16"), "UTF-8"),
    (ImageFolder, "groups.csv", b"", "must be `case,group`"),
    (ImageFolder, "groups.csv", b"case;group\na;1\n", "must be `case,group`"),
    (ImageFolder, "groups.csv", b"case,group\na,1\nbad,1\nc,1\nz,2\n", "names z, but .*images holds no such case"),
    (ImageFolder, "groups.csv", b"case,group\na,1\nc,1\n", "no line for the case 'bad'; add one"),
    (ImageFolder, "groups.csv", b"case,group\na,1\nbad,1\nbad,2\nc,1\n", "line 4 .*'1' before; give it one"),
    (ImageFolder, "groups.csv", b"case,group\na,1\nbad\nc,1\n", "line 3 gives 'bad' the group ''"),
    (ImageFolder, "groups.csv", "case,group\na,Jürgen\n".encode("latin-1"), "UTF-8"),
    (ImageFolder, "groups.csv", b'case,group\na,"' + b"x" * 200_000, "save it as CSV again"),
    (NiftiFolder, "dataset.json", b"", "not valid JSON"),
    (NiftiFolder, "dataset.json", b'{"labels": {"0": "background"', "not valid JSON"),
    (NiftiFolder, "dataset.json", b"\xff\xfe{}", "UTF-8"),
    (NiftiFolder, "dataset.json", b"[]", "no JSON object; correct it"),
    (NiftiFolder, "dataset.json", b'{"labels": {"0": "background", "2": "head"}}', "without a gap"),
    (NiftiFolder, "dataset.json", b'{"labels": {"0": "background", "1": ["head"], "a": null}}', "without a gap"),
    (Ssl4misFolder, "train.list", b"a\nabsent\n", "names absent, but .* complete the folder"),
    (Ssl4misFolder, "test.list", "patiënt\n".encode("latin-1"), "UTF-8"),
    (Ssl4misFolder, "classes.txt", b"background\nbackground\n", "write 2 to 256 different names"),
]


@pytest.mark.parametrize(("kind", "name", "content", "said"), TABLES)
def test_a_malformed_table_is_named_with_its_remedy(
    kind: type[Recipe], name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    source = Source(kind, tmp_path)
    (source.folder / name).write_bytes(content)
    (message,) = source.complaints()
    assert message.startswith(f"{source.folder / name}: ")
    assert re.search(said, message)


def test_all_bad_lines_of_a_table_are_reported_at_once(tmp_path: Path) -> None:
    source = Source(ImageFolder, tmp_path)
    (source.folder / "groups.csv").write_text("case,group\na,\nbad,1\nbad,2\n,3\n")
    told = ["line 2 (one of 2, like 5)", "line 4"]
    assert [re.search(r"line \d( \(.*\))?(?= gives)", message)[0] for message in source.complaints()] == told


def test_a_folder_where_a_table_is_expected_is_named(tmp_path: Path) -> None:
    source = Source(ImageFolder, tmp_path)
    (source.folder / "classes.txt").mkdir()
    (message,) = source.complaints()
    assert "classes.txt: cannot be read" in message


def test_names_that_differ_in_capitals_alone_are_refused(tmp_path: Path) -> None:
    source = Source(ImageFolder, tmp_path)
    for file in source.files("bad"):
        shutil.copy(file, file.with_name("Bad.png"))
    if len(os.listdir(source.folder / "images")) == 3:
        pytest.skip("this file system does not tell them apart")
    assert source.complaints() == ["mine: the cases 'Bad' and 'bad' differ in case alone; rename one."]


def test_a_picture_of_another_depth_is_not_mixed_with_the_others(tmp_path: Path) -> None:
    source = Source(ImageFolder, tmp_path)
    source.files("bad")[0].write_bytes(picture(NOISE.astype(np.uint16) * 200))
    (message,) = source.complaints()
    assert re.search("bad .1 in all. 2D, grey .1 channel., float32.*; convert them", message)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_stays_on_a_photo_that_exif_turns(orientation: int, tmp_path: Path) -> None:
    """Both carry the tag, or the mask was drawn on what a viewer shows, where sizes prove it."""
    source = Source(ImageFolder, tmp_path)
    upright = np.zeros((24, 32), np.uint8)
    upright[2:9, 3:20] = 1
    turns = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: np.transpose}
    turns |= {6: np.rot90, 7: lambda a: np.rot90(a, 2).T, 8: lambda a: np.rot90(a, -1)}
    stored = np.ascontiguousarray(turns[orientation](upright))
    image, mask = source.files("bad")
    image.write_bytes(picture(stored * 200, exif=turned(orientation)))
    mask.write_bytes(picture(stored, exif=turned(orientation)))
    if orientation == 1 or orientation >= 5:
        for file in source.files("c"):
            shutil.copy(image if file.parent.name == "images" else mask, file)
        source.files("c")[1].write_bytes(picture(upright))
    data = Dataset(source.prepare())
    for case in ("bad", "c") if orientation == 1 or orientation >= 5 else ("bad",):
        np.testing.assert_array_equal(data.label(case), upright)
        np.testing.assert_array_equal(data.image(case)[0], upright * 200)


def test_sidecars_and_system_files_are_no_cases(tmp_path: Path) -> None:
    source = Source(NiftiFolder, tmp_path)
    for name in ("bad.json", "Thumbs.db", "desktop.ini", ".DS_Store", "._bad.nii.gz"):
        (source.folder / "imagesTr" / name).write_text("{}")
    assert set(Dataset(source.prepare()).records) == {"a", "bad", "c"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("kind", [kind for kind, _ in KINDS])
def test_a_file_that_may_not_be_read_is_told_from_a_damaged_one(kind: type[Recipe], tmp_path: Path) -> None:
    source = Source(kind, tmp_path)
    source.files("bad")[0].chmod(0)
    (message,) = source.complaints()
    assert "no permission to read it; change that" in message


def test_a_missing_slice_and_one_of_another_size_are_reported_together(tmp_path: Path) -> None:
    source = Source(Ssl4misFolder, tmp_path)
    shutil.rmtree(source.folder / "data")
    (source.folder / "data/slices").mkdir(parents=True)
    for case in ("gap", "mixed"):
        for number in (1, 2, 3):
            image = VOLUME[0, : 5 if (case, number) == ("mixed", 2) else None]
            if (case, number) != ("gap", 2):
                hdf5(source.folder / f"data/slices/{case}_slice_{number}.h5", image=image, label=image > 0.5)
    gap, mixed = source.complaints()
    assert "gap lacks slice 2; add" in gap
    assert "mixed_slice_2.h5: a slice of (5, 7), but mixed_slice_1.h5 is (6, 7); " in mixed


def pack(path: Path, folder: Path, **other: bytes) -> Path:
    """An archive of a folder and of further members."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in sorted(folder.rglob("*.png")):
            file.write(name, name.relative_to(folder))
        for name, content in other.items():
            file.writestr(name, content)
    return path


def encrypt(path: Path) -> None:
    flip(path, 6)
    flip(path, path.read_bytes().index(b"PK\x01\x02") + 8)


PACKED: dict[str, tuple[dict[str, bytes], Callable[[Path], Any], str]] = {
    "escaping": ({"../evil.png": b"evil"}, lambda path: None, "outside of the folder; do not use"),
    "absolute": ({"/tmp/evil.png": b"evil"}, lambda path: None, "outside of the folder; do not use"),
    "bomb": ({"zeros": bytes(2**20)}, lambda path: None, "zip bombs do; if you trust it"),
    "truncated": ({}, cut, "not a readable archive.*; replace it"),
    "truncated by a byte": ({}, lambda path: cut(path, 0.999), "not a readable archive.*; replace it"),
    "damaged": ({}, lambda path: flip(path, 60), "not a readable archive.*; replace it"),
    "empty": ({}, lambda path: path.write_bytes(b""), "not a readable archive.*; replace it"),
    "a web page": ({}, lambda path: path.write_text("<html>Sign in</html>"), "not a readable archive.*; replace it"),
    "encrypted": ({}, encrypt, "encrypted; unpack it with its password"),
}


@pytest.mark.parametrize(("others", "damage", "said"), PACKED.values(), ids=PACKED)
def test_a_malformed_archive_is_named_and_leaves_nothing(
    others: dict[str, bytes], damage: Callable[[Path], Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "HARMLESS", 2**16)
    source = Source(ImageFolder, tmp_path)
    source.folder = pack(tmp_path / "mine.zip", source.folder, **others)
    damage(source.folder)
    with pytest.raises(UserError) as caught:
        source.prepare()
    assert str(caught.value).startswith(f"{source.folder}: ")
    assert re.search(said, str(caught.value))
    assert "\n" not in str(caught.value)
    assert source.path.read_bytes() == source.before
    assert [path for path in source.out.rglob("*") if path.is_file()] == [source.path]
    assert os.listdir(source.out / "raw") == []


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Writing beyond a size fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 700, 3000, 40_000, 100_000])
def test_a_full_disk_is_said_in_one_line(size: int, tmp_path: Path) -> None:
    source = Source(ImageFolder, tmp_path)
    for number in range(200):
        for file, content in zip(source.files(f"more{number}"), (picture(NOISE), picture(MASK)), strict=True):
            file.write_bytes(content)
    with file_size_limit(size):
        (message,) = source.complaints()
    assert re.search(r"mine\.h5: cannot be written .*; free some space or choose another folder", message)


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupted_preparation_leaves_everything_as_it_was(
    jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(ImageFolder, tmp_path, tuple("abcdef"))
    source.files("a")[0].write_bytes(picture(255 - NOISE))
    monkeypatch.setattr(preparation, "WORTH_PROCESSES", 0.0)

    def interrupt(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(ImageFolder(source.folder), source.out, interrupt, jobs=jobs)
    assert source.path.read_bytes() == source.before
    assert os.listdir(source.out) == [source.path.name]
    assert source.prepare().read_bytes() != source.before
