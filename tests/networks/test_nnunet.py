"""nnU-Net's network has the published size, plans itself for any patch, and runs on any image."""

import pytest
import torch
from torch import nn

from semiseg.errors import UserError
from semiseg.networks import build_network
from semiseg.networks.nnunet import InstanceNorm, Plan, nnunet, plan_for

# The plan fixed in SSL4MIS.
SSL4MIS = Plan(
    strides=((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2)),
    kernels=((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
)
TRAINING = {2: (64, 64), 3: (8, 24, 24)}
SIZES = [(64, 64), (50, 70), (16, 16), (17, 33), (8, 24, 24), (9, 19, 18), (16, 16, 16), (20, 33, 47)]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def small(size, channels=1, classes=3):
    return nnunet(channels, classes, size, features=8, widest=96)


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def test_the_plan_of_ssl4mis_gives_its_number_of_parameters():
    network = nnunet(1, 2, (16, 256, 256), features=16, plan=SSL4MIS)
    unused = 2 * (32 + 64 + 128 + 256 + 320)  # heads of the coarser levels, which SSL4MIS builds and never reads
    assert parameters(network) + unused == 30_446_256


def test_widths_double_up_to_the_limit_of_the_dimension():
    for size, widths in [((256, 256), [32, 64, 128, 256, 512, 512, 512]), ((96, 96, 96), [32, 64, 128, 256, 320])]:
        assert [block[0].out_channels for block in nnunet(1, 2, size).encoder.blocks] == widths


@pytest.mark.parametrize(
    ("size", "poolings", "flat_stages"),
    [
        ((32, 32), (3, 3), 0),
        ((256, 256), (6, 6), 0),
        ((1024, 1024), (6, 6), 0),
        ((20, 256), (2, 6), 0),
        ((8, 24, 24), (1, 2, 2), 1),
        ((16, 256, 256), (2, 6, 6), 3),
        ((96, 96, 96), (4, 4, 4), 0),
        ((112, 112, 80), (4, 4, 4), 0),
        ((3, 128, 128), (0, 5, 5), 5),
    ],
)
def test_every_axis_keeps_four_positions_and_coarse_axes_wait(size, poolings, flat_stages):
    plan = plan_for(size)
    assert tuple(sum(s == 2 for s in axis) for axis in zip(*plan.strides, strict=True)) == poolings
    assert sum(1 in kernel for kernel in plan.kernels) == flat_stages
    assert plan.kernels[flat_stages:] == ((3,) * len(size),) * (len(plan.kernels) - flat_stages)
    for stride, kernel in zip(plan.strides, plan.kernels, strict=False):
        assert not any(s == 2 and k == 1 for s, k in zip(stride, kernel, strict=True))


def test_slices_of_a_thick_volume_do_not_mix_at_the_first_stage():
    network = small((8, 48, 48)).eval()
    convolution = network.encoder.blocks[0][0]
    volume = torch.rand(1, 1, 8, 48, 48)
    changed = volume.clone()
    changed[:, :, 3] = 0
    difference = (convolution(volume) - convolution(changed)).abs().amax((0, 1, 3, 4))
    assert (difference > 0).nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("training", [True, False])
def test_any_size_of_image_gives_aligned_levels(size, training):
    trained_at = TRAINING[len(size)]
    network, levels = small(trained_at).train(training), [size]
    for stride in plan_for(trained_at).strides:
        levels.append(tuple(-(-length // s) for length, s in zip(levels[-1], stride, strict=True)))
    output = network(torch.rand(1, 1, *size))
    assert output.logits.shape == (1, 3, *size)
    assert output.logits.isfinite().all()
    assert [tuple(m.shape[2:]) for m in output.encoder] == levels
    assert [tuple(m.shape[2:]) for m in output.decoder] == levels[-2::-1]


def test_an_image_far_smaller_than_the_patches_is_still_segmented():
    network = nnunet(1, 2, (256, 256), features=4, widest=16)
    logits = network(torch.rand(1, 1, 16, 16)).logits  # a single position from the fourth step on
    assert logits.shape == (1, 2, 16, 16)
    assert logits.isfinite().all()
    assert logits.std() > 0


@pytest.mark.parametrize("size", TRAINING.values())
def test_every_parameter_is_trained(size):
    network = small(size)
    network(torch.rand(2, 1, *size)).logits.square().sum().backward()
    assert not [n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not [n for n, p in network.named_parameters() if n.endswith("weight") and not p.grad.any()]


@pytest.mark.parametrize("size", TRAINING.values())
def test_training_and_prediction_compute_the_same(size):
    network, images = small(size), torch.rand(2, 1, *size)
    with torch.no_grad():
        expected = network(images).logits
        assert torch.equal(network.eval()(images).logits, expected)
        torch.testing.assert_close(network(images[:1]).logits, expected[:1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_norm_is_instance_norm(dims):
    torchs = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[dims](6, affine=True)
    ours = InstanceNorm(6)
    x = 3 + 2 * torch.randn(2, 6, *(5, 4, 3)[:dims])
    for norm in (torchs, ours):
        nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))
        nn.init.normal_(norm.bias, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(ours(x), torchs(x))


@pytest.mark.parametrize("size", TRAINING.values())
def test_losses_get_float32_logits_under_mixed_precision(size):
    with torch.autocast("cpu", torch.bfloat16):
        logits = small(size)(torch.rand(1, 1, *size)).logits
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


def test_images_too_small_to_be_halved_are_refused_in_one_line():
    with pytest.raises(UserError, match="images of 6 × 6 have no axis of 8 positions"):
        build_network("nnunet", 1, 2, (6, 6))
    assert build_network("nnunet", 1, 2, (4, 40))(torch.zeros(1, 1, 4, 40)).logits.shape == (1, 2, 4, 40)
