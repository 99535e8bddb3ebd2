"""URPC: the formula, where the heads stand, and what training perturbs."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from semiseg.errors import UserError
from semiseg.losses import supervised_loss
from semiseg.method import Progress, Task, predict
from semiseg.methods.urpc import UncertaintyRectifiedPyramidConsistency, pyramid_consistency
from semiseg.networks import EncoderDecoder

END = Progress(100, 100)


def numpy_consistency(logits):
    e = np.exp(logits - logits.max(2, keepdims=True))
    p = e / e.sum(2, keepdims=True)
    mean = p.mean(0)
    losses = []
    for scale in p:
        v = (mean * np.log(mean / scale)).sum(1)
        weight = np.exp(-v)
        squares = (mean - scale) ** 2 * weight[:, None]
        losses.append(squares.mean() / (weight.mean() + 1e-8) + v.mean())
    return np.mean(losses)


@pytest.mark.parametrize("space", [(5, 7), (3, 4, 5)], ids=["2d", "3d"])
@pytest.mark.parametrize("scales", [2, 4])
def test_consistency_is_the_papers_formula(space, scales):
    logits = np.random.default_rng(0).normal(0, 2, (scales, 2, 3, *space))
    loss = sum(pyramid_consistency(torch.from_numpy(logits)))
    assert loss.item() == pytest.approx(numpy_consistency(logits), rel=1e-5)


def test_gradients_flow_through_mean_uncertainty_and_weights():
    logits = np.random.default_rng(1).normal(0, 1.5, (3, 1, 2, 2, 2))
    tensor = torch.from_numpy(logits).requires_grad_()
    sum(pyramid_consistency(tensor)).backward()
    for index in np.ndindex(logits.shape):
        step = np.zeros_like(logits)
        step[index] = 1e-5
        slope = (numpy_consistency(logits + step) - numpy_consistency(logits - step)) / 2e-5
        assert tensor.grad[index].item() == pytest.approx(slope, rel=1e-3, abs=1e-6)


def test_equal_scales_cost_nothing_and_different_ones_something():
    logits = torch.randn(1, 2, 3, 6, 6)
    distance, uncertainty = pyramid_consistency(logits.expand(4, -1, -1, -1, -1))
    assert distance.item() == pytest.approx(0, abs=1e-6)
    assert uncertainty.item() == pytest.approx(0, abs=1e-6)
    for _ in range(20):
        distance, uncertainty = pyramid_consistency(torch.randn(2, 1, 3, 1, 1))
        assert distance > 0
        assert uncertainty > 0


def test_certain_and_contradicting_scales_give_finite_losses_and_gradients():
    logits = torch.full((4, 1, 3, 4, 4), -500.0)
    for scale in range(4):
        logits[scale, :, scale % 3] = 500.0
    logits.requires_grad_()
    loss = sum(pyramid_consistency(logits))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_the_formula_is_computed_in_full_precision():
    logits = torch.randn(4, 2, 3, 8, 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = pyramid_consistency(logits)
    assert torch.equal(torch.stack(mixed), torch.stack(pyramid_consistency(logits.float())))


def test_every_scale_learns_from_labels_with_equal_weight_and_agrees_on_the_rest(task, batch):
    method = UncertaintyRectifiedPyramidConsistency(task).eval()
    losses = method.losses(batch, END)
    scales = method.pyramid(batch.images())
    assert len(scales) == 4
    supervised = [supervised_loss(s[:2], batch.labels).item() for s in scales]
    assert losses["supervised"].item() == pytest.approx(np.mean(supervised), rel=1e-5)
    unlabeled = np.stack([s[2:].detach().double().numpy() for s in scales])
    assert losses["consistency"].item() == pytest.approx(0.1 * numpy_consistency(unlabeled), rel=1e-3)
    for part in ("supervised", "consistency"):
        method.zero_grad()
        method.losses(batch, END)[part].backward()
        assert all(head.weight.grad.any() for head in method.heads.heads)
        assert method.segmenter.encoder.state_dict(keep_vars=True)["blocks.0.0.weight"].grad.any()


def test_consistency_follows_the_ramp(task, batch):
    method = UncertaintyRectifiedPyramidConsistency(task).eval()
    start, middle, end = (method.losses(batch, Progress(t, 100))["consistency"].item() for t in (0, 50, 100))
    assert start / end == pytest.approx(np.exp(-5), rel=1e-4)
    assert middle / end == pytest.approx(np.exp(-1.25), rel=1e-4)


def test_perturbations_act_on_the_coarser_heads_alone_and_only_in_training(task, batch):
    method = UncertaintyRectifiedPyramidConsistency(task)

    def pyramid(perturbations):
        method.perturbations = perturbations
        torch.manual_seed(0)
        return [logits.detach() for logits in method.pyramid(batch.images())]

    erase, keep = (torch.zeros_like,) * 3, (torch.clone,) * 3
    erased, kept = pyramid(erase), pyramid(keep)
    torch.testing.assert_close(erased[0], kept[0])
    for logits, head in zip(erased[1:], method.heads.heads, strict=True):
        bias = head.bias.detach().view(1, -1, *[1] * task.dims)
        torch.testing.assert_close(logits, bias.expand_as(logits))
    method.eval()
    assert all(torch.equal(a, b) for a, b in zip(pyramid(erase), pyramid(keep), strict=True))


def test_the_published_perturbations_are_ordered_from_fine_to_coarse(task, batch):
    method = UncertaintyRectifiedPyramidConsistency(task)
    maps = [torch.rand(2, 64, *[8] * task.dims) + 0.1 for _ in range(3)]
    fine, middle, coarse = (p(m) / m for p, m in zip(method.perturbations, maps, strict=True))
    if task.dims == 2:
        assert fine.min() >= 0.7 - 1e-4
        assert fine.max() <= 1.3 + 1e-4
        assert ((middle == 0).all(1) | (middle == 1).all(1)).all()
        assert (coarse == 0).float().mean().item() == pytest.approx(0.5, abs=0.05)
    else:
        for ratio, probability in ((fine, 0.2), (middle, 0.3), (coarse, 0.5)):
            kept = ratio[ratio > 0]
            torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - probability)))
            assert ratio.flatten(2).std(2).max() < 1e-5  # whole channels


def test_predictions_are_repeatable_and_come_from_the_networks_own_head(task, batch):
    method = UncertaintyRectifiedPyramidConsistency(task).train()
    (main,) = method.predictors().values()
    first, second = (predict(main, batch.unlabeled()).logits for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(first, method.eval().pyramid(batch.unlabeled())[0])


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (Task(1, 4, (32, 32), "unet"), 1_831_060 - 9_220),  # the reference has a head on the bottleneck, unused
        (Task(1, 2, (32, 32, 32), "unet_3d"), 5_884_504),
        (Task(1, 3, (32, 32, 32), "unet_3d"), 5_884_748),
    ],
)
def test_the_network_has_the_published_number_of_parameters(task, expected):
    assert sum(p.numel() for p in UncertaintyRectifiedPyramidConsistency(task).parameters()) == expected


class Pooled(nn.Module):
    """Maps at as many strides as asked for."""

    def __init__(self, strides):
        super().__init__()
        self.convolution, self.strides = nn.Conv2d(1, 4, 1), strides

    def forward(self, images):
        return tuple(nn.functional.avg_pool2d(self.convolution(images), s) for s in self.strides)


class OnOtherNetwork(UncertaintyRectifiedPyramidConsistency):
    strides: tuple[int, ...]

    def network(self, *arguments):
        return EncoderDecoder(Pooled(self.strides), nn.Identity(), nn.Conv2d(4, 3, 1))


@pytest.mark.parametrize(("strides", "heads"), [((2, 1), 1), ((4, 2, 1), 2), ((32, 16, 8, 4, 2, 1), 3)])
def test_as_many_levels_are_used_as_the_network_has_but_no_more_than_three(strides, heads):
    class Method(OnOtherNetwork):
        pass

    Method.strides = strides
    method = Method(Task(1, 3, (32, 32), "other"))
    assert len(method.pyramid(torch.rand(1, 1, 32, 32))) == heads + 1


def test_a_network_without_a_pyramid_is_refused_in_one_line():
    class Method(OnOtherNetwork):
        strides = (1, 1)

    with pytest.raises(UserError, match=r"network 'flat'.*choose") as caught:
        Method(Task(1, 3, (32, 32), "flat"))
    assert "\n" not in str(caught.value)


def test_nearest_neighbour_upsampling_is_a_setting(task, batch):
    build = partial(UncertaintyRectifiedPyramidConsistency, task)
    config = UncertaintyRectifiedPyramidConsistency.Config(upsampling="nearest")
    blocky, smooth = (m.eval().pyramid(batch.images())[-1] for m in (build(config), build()))
    corners = [(logits[..., 8, 8], logits[..., 15, 15]) for logits in (blocky, smooth)]  # of one block of 8 × 8
    assert [torch.equal(*pair) for pair in corners] == [True, False]
