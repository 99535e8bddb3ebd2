"""Networks have the published size, accept any image, train every weight, and start from files safely."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from semiseg.errors import UserError
from semiseg.network_contract import SIZES, NetworkContract
from semiseg.networks import NETWORKS, build_network, network_names

PARAMETERS = [
    ("unet", 1, 4, 1_813_764),
    ("unet", 1, 2, 1_813_474),
    ("res2net50_unet", 3, 2, 12_318_330),
    ("unet_3d", 1, 2, 5_884_050),
    ("vnet", 1, 2, 9_448_866),
]
SMALL = [name for name in NETWORKS if name.endswith("_small")]
TESTED = [name for name in NETWORKS if f"{name}_small" not in NETWORKS]
CASES = [(name, dims) for name in TESTED for dims in NETWORKS[name].dims]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def network_and_images(name, size=None, channels=1, classes=3):
    size = size or SIZES[NETWORKS[name].dims[0]][1]
    return build_network(name, channels, classes, size), torch.rand(2, channels, *size)


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("name", "channels", "classes", "expected"), PARAMETERS)
def test_a_network_has_exactly_its_published_number_of_parameters(name, channels, classes, expected):
    assert parameters(build_network(name, channels, classes, (96,) * NETWORKS[name].dims[0])) == expected


@pytest.mark.parametrize("name", SMALL)
def test_a_small_network_is_small(name):
    size = (64,) * NETWORKS[name].dims[0]
    small, full = (build_network(n, 1, 2, size) for n in (name, name.removesuffix("_small")))
    assert parameters(small) < parameters(full) / 3


@pytest.mark.parametrize("check", NetworkContract.checks())
@pytest.mark.parametrize(("name", "dims"), CASES)
def test_contract(name, dims, check):
    getattr(NetworkContract(name, dims), check)()


@pytest.mark.parametrize(
    "name", ["unet_small", "res2net50_unet_small", "efficientnet_lite0_unet", "unet_3d_small", "vnet_small"]
)
def test_a_u_net_has_five_aligned_levels(name):
    for size in SIZES[NETWORKS[name].dims[0]]:
        network, images = network_and_images(name, size)
        output = network(images)
        levels = [tuple(-(-s // 2**k) for s in size) for k in range(5)]
        assert [tuple(f.shape[2:]) for f in output.encoder] == levels
        assert [tuple(f.shape[2:]) for f in output.decoder] == levels[-2::-1]


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in TESTED])
def test_every_parameter_of_a_large_network_is_trained(name):
    NetworkContract(name, NETWORKS[name].dims[0]).check_every_parameter_is_trained()


def test_mixed_precision_reaches_the_layers():
    network, images = network_and_images("unet_small")
    with torch.autocast("cpu", torch.bfloat16):
        assert network(images).decoder[0].dtype == torch.bfloat16


def test_a_volume_that_instance_norm_would_erase_is_refused():
    with pytest.raises(UserError, match="more than 16 voxels"):
        build_network("unet_3d_small", 1, 2, (16, 16, 16))


def test_an_unknown_network_is_answered_with_the_known_ones():
    choice = r"did you mean 'unet'\? choose one of efficient.*, unet, unet_small.* --methods-dir"
    with pytest.raises(UserError, match=rf"no such 2D network; {choice}"):
        build_network("unnet", 1, 2, (64, 64))
    with pytest.raises(
        UserError, match=r"is for 2D data.*choose one of attention_unet, .*unet_3d, unet_3d_small, vnet"
    ):
        build_network("unet", 1, 2, (64, 64, 64))
    assert set(network_names(2)) | set(network_names(3)) == set(NETWORKS)


def published(channels=3):
    """The weights of a classifier as published: no prefix, with parts that we leave out."""
    encoder = build_network("res2net50_unet", channels, 2, (64, 64)).encoder
    weights = {k: torch.rand_like(v) if v.is_floating_point() else v for k, v in encoder.state_dict().items()}
    own = {k: v for k, v in weights.items() if not k.startswith("full.") and not k.endswith("num_batches_tracked")}
    return own | {"fc.weight": torch.zeros(2), "layer4.0.conv1.weight": torch.zeros(2)}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_published_weights_reach_every_layer_of_the_encoder(suffix, tmp_path):
    path, weights = tmp_path / f"weights{suffix}", published()
    (save_file if suffix == ".safetensors" else torch.save)(weights, path)
    loaded = build_network("res2net50_unet", 3, 2, (64, 64), path).encoder.state_dict()
    assert {
        "conv1.0.weight",
        "bn1.running_var",
        "layer1.0.convs.0.weight",
        "layer3.0.downsample.1.weight",
    } <= set(loaded)
    assert all(torch.equal(loaded[k], v) for k, v in weights.items() if not k.startswith(("fc.", "layer4.")))
    gray = build_network("res2net50_unet", 1, 2, (64, 64), path).encoder.state_dict()["conv1.0.weight"]
    torch.testing.assert_close(gray, weights["conv1.0.weight"].sum(1, keepdim=True))


def refused(path: Path, name="res2net50_unet"):
    with pytest.raises(UserError) as caught:
        build_network(name, 3, 2, (64, 64), path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_wrong_weights_are_refused_in_one_line(tmp_path):
    path, weights = tmp_path / "weights.pth", published()
    assert "cannot be read" in refused(path)
    for name in ("weights.pth", "weights.safetensors"):
        (tmp_path / name).write_bytes(b"not weights")
        assert "cannot be read" in refused(tmp_path / name)
    torch.save({"epoch": 3, "network": weights}, path)
    assert "more than weights" in refused(path)
    torch.save({k: v for k, v in weights.items() if k != "bn1.weight"} | {"head.bias": torch.zeros(1)}, path)
    assert "missing: bn1.weight; unknown: head.bias" in refused(path)
    torch.save(weights | {"bn1.weight": torch.zeros(1)}, path)
    assert "of another shape: bn1.weight" in refused(path)
    assert "able to: efficientnet_lite0_unet, efficientnet_lite1_unet, res2net50_unet, swin_unet)" in refused(
        path, "unet"
    )
