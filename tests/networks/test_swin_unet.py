"""Swin-UNet has the published size and weights, attends as published, and runs on any image."""

from itertools import product

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from semiseg.errors import UserError
from semiseg.networks.swin_unet import PatchMerging, load_imagenet, patch_for, swin_unet
from semiseg.networks.window_attention import WindowAttention, cut, join

TRAINING = {2: (32, 32), 3: (8, 24, 24)}
SIZES = [(64, 64), (50, 70), (16, 16), (17, 33), (8, 24, 24), (9, 19, 18), (16, 16, 16), (20, 33, 47)]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def small(size, channels=1, classes=3):
    return swin_unet(channels, classes, size, patch=2, embed=24, heads=(1, 2, 4), window=4)


def test_it_has_exactly_its_published_number_of_parameters():
    network = swin_unet(1, 4, (224, 224))
    assert sum(p.numel() for p in network.parameters()) == 27_168_420


def test_the_number_of_parameters_does_not_depend_on_the_size_of_pictures():
    numbers = {sum(p.numel() for p in small(size).parameters()) for size in [(224, 224), (16, 64), (33, 50)]}
    assert len(numbers) == 1


def test_a_gray_image_is_an_image_of_three_equal_channels():
    network, gray = small((32, 32)).eval(), torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(network(gray.repeat(1, 3, 1, 1)).logits, network(gray).logits)


def test_several_modalities_are_read_as_they_are():
    network, images = small((32, 32), channels=4).eval(), torch.rand(1, 4, 32, 32)
    images.requires_grad_()
    network(images).logits.square().sum().backward()
    assert images.grad.abs().amax((0, 2, 3)).gt(0).all()


@pytest.mark.parametrize(
    ("size", "patch"),
    [
        ((224, 224), (4, 4)),
        ((64, 256), (4, 4)),
        ((96, 96, 96), (4, 4, 4)),
        ((112, 112, 80), (4, 4, 4)),
        ((8, 24, 24), (2, 4, 4)),
        ((16, 256, 256), (1, 4, 4)),
    ],
)
def test_a_coarse_axis_gets_short_patches(size, patch):
    assert patch_for(size, 4) == patch


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("training", [True, False])
def test_any_size_of_image_gives_aligned_levels(size, training):
    trained_at = TRAINING[len(size)]
    levels = [tuple(-(-length // p) for length, p in zip(size, patch_for(trained_at, 2), strict=True))]
    for _ in range(2):
        levels.append(tuple(-(-length // 2) for length in levels[-1]))
    output = small(trained_at).train(training)(torch.rand(1, 1, *size))
    assert output.logits.shape == (1, 3, *size)
    assert output.logits.isfinite().all()
    assert [tuple(m.shape[1:]) for m in output.encoder] == [(24 * 2**k, *level) for k, level in enumerate(levels)]
    assert [tuple(m.shape[2:]) for m in output.decoder] == [*levels[-2::-1], size]


@pytest.mark.parametrize("size", TRAINING.values())
def test_every_parameter_is_trained(size):
    network = small(size).eval()  # no path is dropped
    network(torch.rand(2, 1, *size)).logits.square().sum().backward()
    assert not [n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not [n for n, p in network.named_parameters() if not p.grad.any()]


@pytest.mark.parametrize("size", TRAINING.values())
def test_paths_are_dropped_in_training_only_and_items_do_not_mix(size):
    network, images = small(size), torch.rand(4, 1, *size)
    with torch.no_grad():
        assert not torch.equal(network(images).logits, network(images).logits)
        network.eval()
        expected = network(images).logits
        assert torch.equal(network(images).logits, expected)
        torch.testing.assert_close(network(images[2:3]).logits, expected[2:3])


@pytest.mark.parametrize("size", TRAINING.values())
def test_losses_get_float32_logits_under_mixed_precision(size):
    with torch.autocast("cpu", torch.bfloat16):
        output = small(size)(torch.rand(1, 1, *size))
    assert output.logits.dtype == torch.float32
    assert output.logits.isfinite().all()


def attention_in_numpy(module, x):
    """Token by token: who shares its window after the shift, without crossing the border of the map."""
    weight, bias = (p.detach().numpy().astype(float) for p in (module.qkv.weight, module.qkv.bias))
    table = module.relative_position_bias_table.detach().numpy()
    space, width, heads = x.shape[:-1], x.shape[-1], module.heads
    window = [min(module.window, n) for n in space]
    shift = [module.shift if n > module.window else 0 for n in space]
    qkv = (x @ weight.T + bias).reshape(*space, 3, heads, width // heads)

    def place(token):
        """Its window, and whether the shift wraps it around."""
        rolled = [(t - s) % (-(-n // w) * w) for t, s, n, w in zip(token, shift, space, window, strict=True)]
        windows = [r // w for r, w in zip(rolled, window, strict=True)]
        return windows + [t < s for t, s in zip(token, shift, strict=True)]

    tokens = list(product(*map(range, space)))
    result = np.zeros(x.shape)
    for token in tokens:
        others = [other for other in tokens if place(other) == place(token)]
        offsets = [[a - b + module.window - 1 for a, b in zip(token, other, strict=True)] for other in others]
        rows = [np.ravel_multi_index(o, [2 * module.window - 1] * len(space)) for o in offsets]
        for head in range(heads):
            query = qkv[(*token, 0, head)] * (width // heads) ** -0.5
            scores = np.array([query @ qkv[(*other, 1, head)] for other in others]) + table[rows, head]
            scores = np.exp(scores - scores.max())
            values = np.stack([qkv[(*other, 2, head)] for other in others])
            result[token][head * width // heads : (head + 1) * width // heads] = scores / scores.sum() @ values
    return result @ module.proj.weight.detach().numpy().T + module.proj.bias.detach().numpy()


@pytest.mark.parametrize("space", [(6, 6), (7, 4), (2, 8), (2, 2), (4, 6, 5), (2, 3, 4)])
@pytest.mark.parametrize("shift", [0, 1])
def test_attention_sees_the_window_and_neither_padding_nor_the_far_border(space, shift):
    module = WindowAttention(len(space), width=4, heads=2, window=3, shift=shift)
    torch.nn.init.normal_(module.relative_position_bias_table)
    torch.nn.init.normal_(module.qkv.bias)
    x = torch.randn(1, *space, 4)
    with torch.no_grad():
        ours = module(x)[0].numpy()
    np.testing.assert_allclose(ours, attention_in_numpy(module, x[0].numpy().astype(float)), atol=1e-5)


def test_merging_reads_the_neighbors_in_the_order_of_the_published_weights():
    x, merging = torch.rand(1, 4, 6, 3), PatchMerging(2, 3)
    ordered = torch.cat([x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)], -1)
    torch.testing.assert_close(merging(x), merging.reduction(merging.norm(ordered)))


@pytest.mark.parametrize("block", [(2, 3), (2, 1, 3)])
def test_blocks_are_cut_and_joined(block):
    x = torch.rand(2, *(4 * length for length in block), 5)
    blocks = cut(x, block)
    assert torch.equal(join(blocks), x)
    second = tuple(slice(length, 2 * length) for length in block)
    assert torch.equal(blocks[(0, *[1] * len(block))], x[(0, *second)])


def published():
    """Names and shapes of Swin-Tiny; what Swin-UNet has no place for is part of it."""
    depths, weights = (2, 2, 6, 2), {"patch_embed.proj.weight": torch.rand(96, 3, 4, 4)}
    shapes = {"patch_embed.proj.bias": (96,), "head.weight": (1000, 768), "head.bias": (1000,)}
    norms = {"patch_embed.norm": 96, "norm": 768}
    for layer, depth in enumerate(depths):
        width = 96 * 2**layer
        for block in range(depth):
            prefix = f"layers.{layer}.blocks.{block}"
            norms |= {f"{prefix}.norm1": width, f"{prefix}.norm2": width}
            shapes[f"{prefix}.attn.relative_position_bias_table"] = (169, 3 * 2**layer)
            shapes[f"{prefix}.attn.relative_position_index"] = (49, 49)
            linear = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
            for name, (outputs, inputs) in linear.items():
                shapes[f"{prefix}.{name}.weight"] = (outputs * width, inputs * width)
                shapes[f"{prefix}.{name}.bias"] = (outputs * width,)
        if layer < 3:
            norms[f"layers.{layer}.downsample.norm"] = 4 * width
            shapes[f"layers.{layer}.downsample.reduction.weight"] = (2 * width, 4 * width)
            shapes[f"layers.{layer}.blocks.1.attn_mask"] = (4, 49, 49)
    shapes |= {f"{name}.{part}": (width,) for name, width in norms.items() for part in ("weight", "bias")}
    return weights | {name: torch.rand(shape) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def swin_tiny():
    return published()


@pytest.mark.parametrize("name", ["nested.pth", "flat.pth", "flat.safetensors"])
def test_published_weights_reach_the_encoder_and_its_mirror_image(name, swin_tiny, tmp_path):
    path = tmp_path / name
    if name == "flat.safetensors":
        save_file(swin_tiny, path)
    else:
        torch.save({"model": swin_tiny} if name == "nested.pth" else swin_tiny, path)
    network = swin_unet(1, 4, (64, 64))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    load_imagenet(network, path)
    encoder, decoder = network.encoder.state_dict(), network.decoder.state_dict()
    assert all(torch.equal(v, swin_tiny[k]) for k, v in encoder.items())
    mirrored = {k for k in decoder if ".blocks." in k}
    assert len(mirrored) == 3 * 2 * 13
    assert all(torch.equal(decoder[k], swin_tiny[k]) for k in mirrored)
    assert all(torch.equal(decoder[k], before[f"decoder.{k}"]) for k in decoder.keys() - mirrored)
    network(torch.rand(1, 1, 64, 64))


def test_images_of_two_channels_get_the_weights_of_gray_ones(swin_tiny, tmp_path):
    torch.save({"model": swin_tiny}, tmp_path / "swin.pth")
    network = swin_unet(2, 4, (64, 64))
    load_imagenet(network, tmp_path / "swin.pth")
    stem, gray = network.encoder.patch_embed.proj.weight, swin_tiny["patch_embed.proj.weight"].sum(1)
    torch.testing.assert_close(stem.sum(1), gray)


def test_weights_that_do_not_fit_are_refused_in_one_line_and_change_nothing(swin_tiny, tmp_path):
    network, path = small((32, 32)), tmp_path / "swin.pth"
    before = {k: v.clone() for k, v in network.state_dict().items()}

    def refused(content, network=network):
        torch.save(content, path)
        with pytest.raises(UserError) as caught:
            load_imagenet(network, path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
        return str(caught.value)

    assert "of another shape" in refused({"model": swin_tiny})
    assert "of another shape" in refused({"model": swin_tiny}, small((8, 24, 24)))
    assert "more than weights" in refused({"model": 3})
    full = swin_unet(1, 2, (32, 32))
    assert "patch_embed.proj.weight the first" in refused({}, full)
    lacking = {k: v for k, v in swin_tiny.items() if k != "layers.3.blocks.1.mlp.fc2.bias"}
    assert ": 1 of " in refused({"model": lacking}, full)
    path.write_bytes(b"not weights")
    with pytest.raises(UserError, match="cannot be read"):
        load_imagenet(network, path)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_an_image_of_low_contrast_is_seen_as_well_as_any():
    network, images = small((32, 32)).eval(), torch.rand(2, 1, 32, 32)
    faint = 0.5 + 0.05 * images
    assert torch.allclose(network(faint).logits, network(images).logits, atol=2e-2)
    assert network(images).logits.std() > 0.1
