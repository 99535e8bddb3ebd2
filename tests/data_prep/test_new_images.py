"""New images are prepared as those of the training were, and their masks lie on the grid of their files.

The stored label takes the place of the prediction, so the mask that comes out must be the one that was drawn.
"""

import gzip
import json
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from torch import nn

from pictures import COLOR, GREY, LEFT, RIGHT, save
from semiseg.contract import CPU
from semiseg.data.discovery import recipes
from semiseg.data.formats import unit_range
from semiseg.data.prepare import prepare
from semiseg.data.store import Dataset
from semiseg.data_prep import jsrt_scr
from semiseg.errors import UserError
from semiseg.method import Task
from semiseg.training import prediction
from semiseg.training.prediction import Predictor, image_files, write_mask

RANDOM = np.random.default_rng(0)
VOXELS = RANDOM.integers(1, 900, (5, 6, 4)).astype(np.int16)  # x, y, z
DRAWN = (VOXELS > 450).astype(np.uint8)
SCANNER = np.array([[0, 0, -1.2, 40], [1.2, 0, 0, -7], [0, 3.0, 0, 11], [0, 0, 0, 1]])  # stored as y, z, x
LPS = np.diag([-0.8, -0.8, 3.0, 1.0])


def nifti(path, array, affine=SCANNER):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.header["cal_max"] = 900  # the range in which viewers show it
    nib.save(image, path)
    return path


def itk(path, array, spacing=(0.8, 0.8, 3.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))
    return path


def hdf5(path, image, label):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["image"], file["label"] = image, label
    return path


def nifti_folder(raw):
    nifti(raw / "labels/a.nii.gz", DRAWN)
    return nifti(raw / "images/a.nii.gz", VOXELS), DRAWN, SCANNER


def msd(raw):
    description = {"labels": {"0": "background", "1": "thing"}, "modality": {"0": "T2", "1": "ADC"}}
    nifti(raw / "labelsTr/a.nii.gz", DRAWN)
    (raw / "dataset.json").write_text(json.dumps(description | {"training": [{"image": "a.nii", "label": "a.nii"}]}))
    return nifti(raw / "imagesTr/a.nii.gz", np.stack([VOXELS, VOXELS[::-1]], -1)), DRAWN, SCANNER


def acdc(raw):
    """The voxel size is in the qform alone, and the sform is preferred."""
    folder = raw / "training/patient001"
    unit, true = np.diag([-1.0, -1.0, 1.0, 1.0]), np.diag([-1.5, -1.5, 10.0, 1.0])
    for ending, array in (("", VOXELS), ("_gt", DRAWN)):
        image = nib.Nifti1Image(array, unit)
        image.set_sform(unit, 1)
        image.set_qform(true, 1)
        folder.mkdir(parents=True, exist_ok=True)
        nib.save(image, folder / f"patient001_frame01{ending}.nii.gz")
    return folder / "patient001_frame01.nii.gz", DRAWN, unit


def brats2019(raw):
    image, mask = np.zeros((9, 10, 11), np.int16), np.zeros((9, 10, 11), np.uint8)
    image[2:7, 3:9, 1:5] = VOXELS
    mask[3:5, 4:7, 2] = 1
    nifti(raw / "HGG/p/p_seg.nii.gz", mask)
    return nifti(raw / "HGG/p/p_flair.nii.gz", image), mask, SCANNER


def promise12(raw):
    itk(raw / "Case00_segmentation.mhd", DRAWN)
    return itk(raw / "Case00.mhd", VOXELS), DRAWN, LPS


def left_atrium(raw):
    itk(raw / "A/laendo.nrrd", DRAWN, (1, 1, 1))
    return itk(raw / "A/lgemri.nrrd", VOXELS, (1, 1, 1)), DRAWN, np.diag([-1.0, -1, 1, 1])


def dicom_folder(raw):
    folder = raw / "images/a"
    folder.mkdir(parents=True)
    for z in range(4):
        image = sitk.GetImageFromArray(VOXELS[None, :, :, z].transpose(0, 2, 1))
        image.SetSpacing((0.8, 0.8, 3.0))
        told = {"0008|0018": f"1.{z}", "0008|0060": "MR", "0020|000d": "1.2", "0020|000e": "1.2.3"}
        told |= {"0020|0032": f"0\\0\\{3.0 * z}", "0020|0037": "1\\0\\0\\0\\1\\0"}
        for key, value in told.items():
            image.SetMetaData(key, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{9 - z}.dcm"))
        writer.Execute(image)
    itk(raw / "labels/a.nii.gz", DRAWN)
    return folder, DRAWN, LPS


def ssl4mis_folder(raw):
    """Slices come first, in what is written, too."""
    image = VOXELS.transpose(2, 1, 0)
    return (
        hdf5(raw / "data/patient001_frame01.h5", image, DRAWN.transpose(2, 1, 0)),
        DRAWN.transpose(2, 1, 0),
        np.eye(4),
    )


def ua_mt_folder(raw):
    return hdf5(raw / "A/mri_norm2.h5", VOXELS, DRAWN), DRAWN, np.eye(4)


def synapse(raw):
    """Slices come first; new images are like the test volumes, since training cases come as slices."""
    image, drawn = (array.transpose(2, 1, 0) for array in (VOXELS, DRAWN))
    return hdf5(raw / "test_vol_h5/case0001.npy.h5", image, drawn), drawn, np.eye(4)


def image_folder(raw):
    save(raw / "masks/a.png", LEFT)
    return save(raw / "images/a.png", GREY.astype(np.uint16) * 900), LEFT, None


def drive(raw):
    save(raw / "training/1st_manual/21_manual1.gif", LEFT)
    return save(raw / "training/images/21_training.tif", COLOR), LEFT, None


def stare(raw):
    save(raw / "im0001.ah.ppm", LEFT, format="PPM")
    image = save(raw / "im0001.ppm", COLOR, format="PPM")
    packed = image.with_name("im0001.ppm.gz")
    packed.write_bytes(gzip.compress(image.read_bytes()))
    image.unlink()
    return packed, LEFT, None


def montgomery(raw):
    for side, mask in (("left", LEFT), ("right", RIGHT)):
        save(raw / f"ManualMask/{side}Mask/MCUCXR_0001_0.png", mask)
    return save(raw / "CXR_png/MCUCXR_0001_0.png", GREY.astype(np.uint16) * 80), LEFT | RIGHT, None


def endovis17(raw):
    frame, mask = RANDOM.integers(0, 255, (1080, 1920, 3), np.uint8), np.zeros((1080, 1920), np.uint8)
    mask[28:40, 320:400] = 10
    save(raw / "instrument_dataset_1/ground_truth/Left_labels/frame000.png", mask)
    return save(raw / "instrument_dataset_1/left_frames/frame000.png", frame), mask > 0, None


def jsrt_scr_(raw):
    """A radiograph of 8 × 8 pixels whose masks are 4 × 4."""
    image = raw / "All247images/JPCLN001.IMG"
    image.parent.mkdir(parents=True)
    RANDOM.integers(0, 4096, (8, 8)).astype(">u2").tofile(image)
    masks = {name: np.zeros((4, 4), bool) for name in ("left clavicle", "right clavicle", "right lung", "heart")}
    masks["left lung"] = np.eye(4, dtype=bool)
    for name, mask in masks.items():
        save(raw / f"fold1/masks/{name}/JPCLN001.gif", mask)
    return image, np.kron(np.eye(4), np.ones((2, 2))), None


SOURCES = {
    kind.__name__.rstrip("_"): kind
    for kind in (nifti_folder, msd, acdc, brats2019, promise12, left_atrium, dicom_folder, ssl4mis_folder, ua_mt_folder,
                 synapse, image_folder, drive, stare, montgomery, endovis17, jsrt_scr_)
}  # fmt: skip


def predictor(data: Dataset) -> Predictor:
    task = Task(data.channels, len(data.info.classes), (8, 8), "none")
    recipe = recipes()[data.recipe]
    return Predictor(nn.Identity(), task, data.is_volumetric, "float32", CPU, data.image_type, recipe)


@pytest.mark.parametrize("name", SOURCES)
def test_a_new_image_is_prepared_like_those_of_the_training_and_its_mask_fits_its_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsrt_scr, "SIZE", 8)
    (tmp_path / "raw").mkdir()
    path, drawn, affine = SOURCES[name](tmp_path / "raw")
    data = Dataset(prepare(recipes()[name](tmp_path / "raw"), tmp_path / "data", jobs=1)[0])
    (case,) = data.records
    seen = []

    def predict_case(networks: list[nn.Module], image: np.ndarray, *_: object) -> list[np.ndarray]:
        seen.append(image)
        return [data.label(case).copy() for _ in networks]

    monkeypatch.setattr(prediction, "predict_case", predict_case)
    chosen = predictor(data)
    assert image_files(chosen, path) == [path]
    write_mask(chosen, path, tmp_path / "masks")
    (image,) = seen
    assert image.dtype == data.image(case).dtype
    np.testing.assert_array_equal(image, data.image(case))
    (written,) = (tmp_path / "masks").iterdir()
    if affine is None:
        np.testing.assert_array_equal(np.asarray(Image.open(written)) > 0, drawn > 0)
        return
    mask = nib.load(written)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), drawn)
    np.testing.assert_allclose(mask.affine, affine, atol=1e-6)
    if path.name.endswith(".nii.gz"):
        original = nib.load(path)
        np.testing.assert_array_equal(mask.affine, original.affine)
        np.testing.assert_array_equal(mask.header.get_qform(), original.header.get_qform())
        assert mask.header["cal_max"] == 0
        assert mask.header.get_zooms() == original.header.get_zooms()[:3]


@pytest.mark.parametrize("name", ["ssl4mis_folder", "ua_mt_folder"])
@pytest.mark.parametrize("affine", [SCANNER, LPS], ids=["turned", "lps"])
def test_networks_see_new_scans_as_the_conversion_of_the_training_left_them(
    name: str, affine: np.ndarray, tmp_path: Path
) -> None:
    path = nifti(tmp_path / "scan.nii.gz", VOXELS, affine)
    original = recipes()[name].read_image(path)
    scaled = {
        "ssl4mis_folder": lambda x: (x - x.min()) / (x.max() - x.min()),
        "ua_mt_folder": lambda x: unit_range(x, path),
    }
    expected = scaled[name](VOXELS[None].astype(np.float32)).transpose(0, 3, 2, 1)
    np.testing.assert_allclose(original.image, expected, atol=1e-6)
    original.save(DRAWN.transpose(2, 1, 0), tmp_path / "mask.nii.gz")
    mask = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), DRAWN)
    np.testing.assert_array_equal(mask.affine, nib.load(path).affine)


def test_cases_whose_files_are_called_alike_get_masks_of_their_own(tmp_path: Path) -> None:
    for kind, make in (("left_atrium", left_atrium), ("ua_mt_folder", ua_mt_folder)):
        first, *_ = make(tmp_path / kind)
        second = tmp_path / kind / "B" / first.name
        second.parent.mkdir()
        second.write_bytes(first.read_bytes())
        task = Task(1, 2, (8, 8), "none")
        chosen = Predictor(nn.Identity(), task, True, "float32", CPU, recipe=recipes()[kind])
        assert image_files(chosen, tmp_path / kind) == [first, second]
        assert [prediction.mask_name(chosen, file) for file in (first, second)] == ["A.nii.gz", "B.nii.gz"]
        new = nifti(tmp_path / "new" / "scan.nii.gz", VOXELS)
        assert image_files(chosen, new.parent) == [new]


def test_pictures_are_taken_for_what_those_of_the_training_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_folder(tmp_path / "raw")  # 16 bits
    data = Dataset(prepare(recipes()["image_folder"](tmp_path / "raw"), tmp_path / "data", jobs=1)[0])
    shallow = save(tmp_path / "8_bits.png", GREY)
    with pytest.raises(UserError, match=r"8_bits\.png: has 8 bits, and the images .* more; convert it"):
        write_mask(predictor(data), shallow, tmp_path / "masks")
    seen = []
    monkeypatch.setattr(prediction, "predict_case", lambda _, image, *__: seen.append(image) or [LEFT.astype(np.uint8)])
    chosen = Predictor(nn.Identity(), Task(1, 2, (8, 8), "none"), False, "float32", CPU, "uint8")
    write_mask(chosen, save(tmp_path / "in_colours.png", np.stack([GREY] * 3, -1)), tmp_path / "masks")
    np.testing.assert_array_equal(seen, [GREY[None]])
    with pytest.raises(UserError, match=r"colour\.png: has 3 channels"):
        write_mask(chosen, save(tmp_path / "colour.png", COLOR), tmp_path / "masks")


def test_every_series_in_a_folder_gets_a_mask_named_after_it(tmp_path: Path) -> None:
    folder, *_ = dicom_folder(tmp_path / "raw")
    folder.with_name("b").mkdir()
    for file in folder.iterdir():
        (folder.with_name("b") / file.name).write_bytes(file.read_bytes())
    chosen = predictor(Dataset(prepare(recipes()["dicom_folder"](_labelled(tmp_path / "raw")), tmp_path / "data")[0]))
    images = image_files(chosen, tmp_path / "raw/images")
    assert [prediction.mask_name(chosen, image) for image in images] == ["a.nii.gz", "b.nii.gz"]


def _labelled(raw: Path) -> Path:
    (raw / "labels/b.nii.gz").write_bytes((raw / "labels/a.nii.gz").read_bytes())
    return raw


def test_an_image_that_the_recipe_cannot_read_is_refused_by_name(tmp_path: Path) -> None:
    slices = hdf5(tmp_path / "a_slice_1.h5", VOXELS[0], DRAWN[0])
    for name, path in (
        ("ssl4mis_folder", slices),
        ("jsrt_scr", save(tmp_path / "a.png", GREY).rename(tmp_path / "a.img")),
    ):
        with pytest.raises(UserError, match=path.name) as caught:
            recipes()[name].read_image(path)
        assert "\n" not in str(caught.value)
