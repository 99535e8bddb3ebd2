"""Heatmap Regression: its loss equals the sum over pixels, and what was moved out counts for nothing."""

import math

import pytest
import torch

from semiseg.contract import tiny_task
from semiseg.method import Batch, Progress
from semiseg.methods.heatmap_regression import HeatmapRegression, heatmap_loss


def test_the_loss_is_the_cross_entropy_of_a_gaussian_summed_pixel_by_pixel():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, 7, generator=generator)
    points = torch.rand(2, 3, 2, generator=generator) * 1.6 - 0.8
    expected = 0.0
    for b in range(2):
        for k in range(3):
            row, column = ((points[b, k] + 1) * torch.tensor([5, 7]) / 2 - 0.5).tolist()
            weights = {
                (y, x): math.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * 1.5**2))
                for y in range(5)
                for x in range(7)
            }
            normal = sum(math.exp(v) for v in logits[b, k].flatten().tolist())
            for (y, x), weight in weights.items():
                probability = math.exp(logits[b, k, y, x].item()) / normal
                expected -= weight / sum(weights.values()) * math.log(probability) / 6
    assert heatmap_loss(logits, points, 1.5).item() == pytest.approx(expected, rel=1e-5)


def test_a_point_outside_of_the_image_counts_for_nothing():
    logits = torch.randn(1, 2, 6, 6, requires_grad=True)
    points = torch.tensor([[[0.0, 0.0], [1.2, 0.0]]])
    loss = heatmap_loss(logits, points, 1.0)
    loss.backward()
    assert not logits.grad[0, 1].any()
    assert logits.grad[0, 0].any()
    assert loss.item() == pytest.approx(heatmap_loss(logits[:, :1], points[:, :1], 1.0).item())


def test_each_landmark_learns_its_own_map():
    method = HeatmapRegression(tiny_task(2)).eval()
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(2, 1, 2, 2, generator=generator) - 0.5
    images = torch.rand(3, 1, *method.task.size, generator=generator)
    with torch.no_grad():
        method.model.head.weight[2].mul_(5)  # the maps are to differ
    loss = method.losses(Batch({"weak": images, "plain": images}, points[:, 0]), Progress(0, 10))["supervised"]
    logits = method.model(images[:2]).logits
    assert loss.item() == pytest.approx(heatmap_loss(logits[:, 1:], points[:, 0], 2.0).item(), rel=1e-6)
    assert loss.item() != pytest.approx(heatmap_loss(logits[:, :-1], points[:, 0], 2.0).item(), rel=1e-4)
