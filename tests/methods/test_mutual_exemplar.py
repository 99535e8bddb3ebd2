"""Mutual Exemplar: what the exemplar may know, whom it teaches, and that no switch is dead."""

import math

import pytest
import torch

from semiseg.contract import MethodContract, tiny_dataset
from semiseg.data.splits import make_splits
from semiseg.errors import UserError
from semiseg.method import Batch, Progress, Task
from semiseg.methods.mutual_exemplar import MutualExemplar
from semiseg.training.assembly import partition_for


def built(task: Task, **config) -> MutualExemplar:
    return MutualExemplar(task, MutualExemplar.Config(**config))


def refreshed(task: Task, batch: Batch, **config) -> MutualExemplar:
    """A method whose first snapshot was taken."""
    method = built(task, refresh=1, score_every=1, confidence=0.0, **config)
    method.losses(batch, Progress(0, 100))
    method.after_step(Progress(0, 100))
    return method


def taught(method: MutualExemplar, loss: torch.Tensor) -> list[bool]:
    """Which networks a loss reaches."""
    method.zero_grad()
    loss.backward()
    return [any(p.grad is not None and bool(p.grad.any()) for p in peer.parameters()) for peer in method.peers]


# Soft supervision


def test_the_exemplar_teaches_the_others_and_gets_no_gradient_itself(task, batch):
    method = refreshed(task, batch)
    reached = taught(method, method.losses(batch, Progress(100, 100))["soft"])
    assert reached == [k != method.best for k in range(3)]
    assert all(p.grad is None for p in method.snapshots.parameters())


def test_symmetric_mean_teaches_every_network(task, batch):
    method = refreshed(task, batch, target="symmetric_mean")
    assert len(method.snapshots) == 3
    assert taught(method, method.losses(batch, Progress(100, 100))["soft"]) == [True, True, True]


def test_a_random_source_is_not_always_the_best_network(task, batch):
    method = refreshed(task, batch, target="random")
    drawn = set()
    for step in range(20):
        torch.manual_seed(step)
        method.after_step(Progress(step, 100))
        drawn.add(method.source)
        assert method.best == int(method.scores.mean.argmax())
    assert drawn == {0, 1, 2}


def test_targets_are_frozen_until_the_next_refresh(task, batch):
    method = refreshed(task, batch)
    before = {k: v.clone() for k, v in method.snapshots.state_dict().items()}
    with torch.no_grad():
        for parameter in method.peers.parameters():
            parameter.add_(0.1)
    method.losses(batch, Progress(1, 100))
    assert all(torch.equal(v, method.snapshots.state_dict()[k]) for k, v in before.items())
    method.after_step(Progress(1, 100))
    assert any(not torch.equal(v, method.snapshots.state_dict()[k]) for k, v in before.items())


def test_nothing_is_soft_before_the_first_refresh_or_without_a_confident_pixel(task, batch):
    assert "soft" not in built(task).losses(batch, Progress(99, 100))
    method = refreshed(task, batch)
    object.__setattr__(method.config, "confidence", 1.0)
    logits = [torch.randn(2, 3, *task.size) for _ in range(3)]
    assert method.follow(logits, batch.unlabeled("weak")).item() == pytest.approx(0, abs=1e-7)


def test_soft_weight_is_full_at_forty_percent_of_the_training(task, batch):
    method = refreshed(task, batch).eval()

    def soft(step):
        return method.losses(batch, Progress(step, 100))["soft"].item()

    assert soft(40) == pytest.approx(soft(100), rel=1e-4)
    assert soft(20) / soft(40) == pytest.approx(math.exp(-5 * 0.25), rel=1e-3)


# Contrast


def test_contrast_reaches_all_networks_and_heads(task, batch):
    method = built(task)
    loss = method.losses(batch, Progress(0, 100))["contrastive"]
    assert taught(method, loss) == [True, True, True]
    assert all(p.grad is not None and p.grad.any() for p in method.heads.parameters())


@pytest.mark.parametrize("negatives", ["image", "batch"])
def test_information_bound_is_near_its_cap_for_equal_features_and_not_positive_for_independent_ones(task, negatives):
    torch.manual_seed(0)
    method = built(task, negatives=negatives)
    features = torch.randn(2, 64, *[16] * task.dims)
    method.contrast([features, features, features])
    cap = method.noted["information_cap"]
    candidates = 256 * (2 if negatives == "batch" else 1)
    assert cap == pytest.approx(math.log(candidates))
    assert method.noted["information"] > 0.95 * cap
    method.contrast([torch.randn_like(features) for _ in range(3)])
    assert method.noted["information"] < 0.05
    names = {f"information_{a}_{b}" for a in (1, 2, 3) for b in (1, 2, 3) if a != b}
    assert names <= method.noted.keys()


def test_a_saturated_bound_is_reported(task):
    method = built(task)
    method.source = 0
    assert method.concerns() == []
    one_hot = torch.eye(64).repeat(1, 4)[:, :256].view(1, 64, *((16, 16) if task.dims == 2 else (4, 8, 8)))
    for _ in range(5):
        method.contrast([100 * one_hot + torch.randn(1, 64, *one_hot.shape[2:])] * 3)
    method.saturation.update(torch.tensor([1.0]))
    method.saturation.total.copy_(method.saturation.mass)
    assert "cap" in method.concerns()[0]


def test_a_training_too_short_for_an_exemplar_is_reported(task):
    assert "refresh" in built(task).concerns()[0]


@pytest.mark.parametrize(("wanted", "position"), [("first", 0), (4, 2), (16, 4)])
def test_feature_level_is_the_one_asked_for(task, wanted, position):
    assert built(task, feature_level=wanted).level.position == position


def test_automatic_feature_level_is_the_deepest_with_enough_positions():
    wide = Task(1, 2, (256, 256), "unet_small")
    narrow = Task(1, 2, (64, 64), "unet_small")
    assert built(wide).level.position == 4  # stride 16: 16 × 16 positions
    assert built(narrow).level.position == 2  # stride 4


def test_a_feature_level_that_does_not_exist_is_refused(task):
    with pytest.raises(UserError, match="strides"):
        built(task, feature_level=3)


def test_a_patch_of_96_with_216_positions_runs():
    method = built(Task(1, 2, (96, 96, 96), "unet_3d_small"), feature_level=16)
    features = [torch.randn(1, 64, 6, 6, 6) for _ in range(3)]
    assert method.contrast(features).isfinite()
    assert method.noted["information_cap"] == pytest.approx(math.log(216))


# Views


def test_every_network_sees_its_own_view(task, batch):
    for mode, expected in (("distinct", ["weak", "moderate", "strong"]), ("same", None)):
        method = built(task, view_mode=mode)
        seen: list[torch.Tensor] = []
        for peer in method.peers:
            peer.register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(inputs[0]))
        method.losses(batch, Progress(0, 100))
        if expected:
            assert all(torch.equal(x, batch.images(view)) for x, view in zip(seen, expected, strict=True))
        else:
            assert torch.equal(seen[0], seen[1])
            assert torch.equal(seen[0], torch.cat([batch.labeled("weak"), batch.unlabeled("strong")]))


def test_two_views_are_the_weak_and_the_strong_one_and_take_two_networks(task):
    method = built(task, views=2)
    assert method.views == ("weak", "strong")
    assert len(method.peers) == method.networks == 2


def test_switching_a_term_off_removes_it(task, batch):
    method = refreshed(task, batch, contrastive=False, soft=False)
    assert set(method.losses(batch, Progress(50, 100))) == {"supervised"}


# The exemplar


def test_scores_are_bias_corrected_running_means_of_the_common_weak_view(task, batch):
    method = built(task, score_decay=0.9)
    method.score(batch)
    once = method.scores.mean.clone()
    method.score(batch)
    torch.testing.assert_close(method.scores.mean, once)  # the same Dice twice has that Dice as its mean


def test_a_batch_without_foreground_is_no_news(task, batch):
    method = built(task)
    method.score(batch)
    before = method.scores.mean.clone()
    batch.labels.zero_()
    method.score(batch)
    assert torch.equal(before, method.scores.mean)


def test_the_best_network_becomes_the_exemplar_only_at_a_refresh(task):
    method = built(task, refresh=5)
    method.scores.update(torch.tensor([0.1, 0.5, 0.5]))
    method.after_step(Progress(3, 100))
    assert (method.best, method.source) == (0, -1)
    method.after_step(Progress(4, 100))
    assert (method.best, method.source) == (1, 1)  # the lower index of equals
    assert method.predictors()["exemplar"] is method.peers[1]


def test_exemplar_scores_and_weights_depend_on_labeled_training_cases_alone(tmp_path, task):
    contract = MethodContract("mutual_exemplar", MutualExemplar, task.dims, tmp_path)
    partition = partition_for(MutualExemplar, make_splits(contract.dataset), contract.spec(), contract.dataset)
    changed = tiny_dataset(tmp_path / "changed.h5", task.dims, mirrored=set(partition.labeled))
    assert contract.trained.method.source >= 0  # soft supervision did take place
    other = contract.retrained("permuted", contract.spec(), changed)
    assert all(torch.equal(v, other[k]) for k, v in contract.weights.items())
    relabeled = tiny_dataset(tmp_path / "relabeled.h5", task.dims, mirrored=set(partition.unlabeled))
    third = contract.retrained("relabeled", contract.spec(), relabeled)
    assert not torch.equal(contract.weights["scores.total"], third["scores.total"])


def test_a_refresh_waits_for_a_pass_over_the_unlabeled_images():
    task = Task(1, 2, (32, 32), "unet_small", unlabeled_steps=170)
    assert built(task).refresh_steps == 170
    assert built(task, refresh=200).refresh_steps == 200
