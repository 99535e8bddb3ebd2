"""From a folder that somebody already has, and an empty directory, to results in two commands."""

import json
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from commands import call, in_this_process
from semiseg.console.preparing import next_command
from semiseg.executors import local

TINY = [f"--set=training.{change}" for change in ("steps=1", "labeled_batch=2", "unlabeled_batch=2", "log_every=1")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty directory to work in, and beside it one for what somebody has."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.delenv("SEMISEG_DATA", raising=False)
    monkeypatch.setattr(local.Local, "carry_out", in_this_process)
    monkeypatch.setattr("semiseg.report.report", lambda results: None)  # has tests of its own, and takes its time
    return tmp_path / "what I have"


def save(path, shape):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(zlib.crc32(str(path).encode())).random(shape, np.float32)
    with h5py.File(path, "w") as file:
        file["image"], file["label"] = image, (image > 0.5).astype(np.uint8)


def trained(results):
    records = [json.loads(path.read_text()) for path in results.rglob("run.json")]
    return {(one["spec"]["labels"], one["data"]["labeled"], one["data"]["test"], one["status"]) for one in records}


def test_the_acdc_folder_of_ssl4mis_is_benchmarked_with_3_and_7_patients_as_it_is(folder, tmp_path, capfd):
    cases = [f"patient{p:03}_frame{f:02}" for p in range(1, 13) for f in (1, 2)]
    for case in cases:
        save(folder / f"ACDC/data/{case}.h5", (2, 24, 20))
    slices = [f"{case}_slice_{n}" for case in cases[:20] for n in (1, 0)]
    (folder / "ACDC/train_slices.list").write_text("\n".join(slices))
    (folder / "ACDC/val.list").write_text("\n".join(cases[20:22]))
    (folder / "ACDC/test.list").write_text("\n".join(cases[22:]))
    assert call("prepare", "ssl4mis_folder", "--source", folder / "ACDC", "--jobs", 1) == 0
    assert "Next: semiseg run ssl4mis_folder\n" in capfd.readouterr().out
    assert call("run", "ssl4mis_folder", "--methods", "supervised", "--folds", "7", "--device", "cpu", *TINY) == 0
    results = tmp_path / "empty/results/ssl4mis_folder"
    assert {run[:2] for run in trained(results)} == {("3 patients", 6), ("7 patients", 14)}
    assert {run[3] for run in trained(results)} == {"finished"}
    assert [path.name for path in sorted(results.glob("runs/supervised/*"))] == [
        "labels-3-patients",
        "labels-7-patients",
    ]


def test_the_left_atrium_folder_of_ua_mt_is_benchmarked_with_8_volumes_as_it_is(folder, tmp_path):
    source = folder / "2018LA_Seg_Training Set"
    for case in range(20):
        save(source / f"CASE{case:02}" / "mri_norm2.h5", (20, 18, 16))
    assert call("prepare", "ua_mt_folder", "--source", source, "--jobs", 1) == 0
    small = ["--set=training.size=[32,16,16]", "--set=network=unet_3d_small", "--set=repeats=1"]
    command = ["run", "ua_mt_folder", "--methods", "supervised", "--folds", "0", "--labels", "8 cases"]
    assert call(*command, "--device", "cpu", *TINY, *small) == 0
    assert trained(tmp_path / "empty/results/ua_mt_folder") == {("8 cases", 8, 4, "finished")}


def test_preparing_says_which_command_comes_next(folder, tmp_path, capfd):
    for case in ("patient001_frame01", "patient002_frame01"):
        save(folder / f"mine/data/{case}.h5", (2, 24, 20))
    assert call("prepare", "ssl4mis_folder", "--source", folder / "mine", "--jobs", 1, "--out", "elsewhere") == 0
    renamed = "semiseg run ssl4mis_folder --set dataset=mine --out results/mine --data-dir elsewhere\n"
    assert f"Next: {renamed}" in capfd.readouterr().out
    assert next_command("image_folder", Path("data/my frames.h5")).endswith("'my frames' --data 'my frames'")
