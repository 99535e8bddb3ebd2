"""Mutual Exemplar: what the exemplar may know, whom it teaches, and that no switch is dead."""

import math

import pytest
import torch

from semiseg import losses as L
from semiseg.contract import MethodContract, tiny_dataset
from semiseg.data.splits import make_splits
from semiseg.errors import UserError
from semiseg.method import Batch, Progress, Task, predict
from semiseg.methods.mutual_exemplar import MutualExemplar
from semiseg.methods.supervised import Supervised
from semiseg.networks import Output
from semiseg.training.assembly import partition_for
from semiseg.views import VIEWS


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


def opinion(network: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Class probabilities on the plainest view of unlabelled images."""
    return predict(network, batch.unlabeled("weak")).logits.softmax(1)


# Supervision


def gradients(module: torch.nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in module.parameters() if p.grad is not None]


@pytest.mark.parametrize(("total", "share"), [("sum", 1), ("mean", 1 / 3)])
def test_equal_weights_and_images_give_every_network_the_gradient_of_supervised(task, batch, total, share):
    images = batch.labeled("weak")
    labeled = Batch(dict.fromkeys(VIEWS["scan"], images), batch.labels)  # none is unlabelled
    supervised, method = Supervised(task).eval(), built(task, total=total, contrastive=False).eval()  # without dropout
    sum(supervised.losses(labeled, Progress(0, 100)).values()).backward()
    for peer in method.peers:
        peer.load_state_dict(supervised.model.state_dict())
    method.losses(labeled, Progress(0, 100))["supervised"].backward()
    for peer in method.peers:
        for own, expected in zip(gradients(peer), gradients(supervised.model), strict=True):
            torch.testing.assert_close(own, share * expected, rtol=1e-4, atol=1e-6)


def test_all_terms_are_sums_over_networks_so_that_their_ratios_do_not_depend_on_total(task, batch):
    terms = [refreshed(task, batch, total=total).losses(batch, Progress(50, 100)) for total in ("sum", "mean")]
    assert terms[0].keys() == terms[1].keys() == {"supervised", "contrastive", "soft"}
    for name in ("supervised", "soft"):  # positions of the contrast are drawn
        assert terms[0][name].item() == pytest.approx(3 * terms[1][name].item(), rel=1e-4)
    features = [torch.randn(2, 64, *[8] * task.dims) for _ in range(3)]
    method = refreshed(task, batch)
    contrast = method.contrast
    method.contrast = lambda _: contrast(features)
    losses = method.losses(batch, Progress(50, 100))
    expected = 3 * method.config.contrastive_weight * contrast(features).item()
    assert losses["contrastive"].item() == pytest.approx(expected, rel=0.05)


# Soft supervision


def test_every_network_is_taught_by_the_best_snapshot_that_is_not_its_own(task, batch):
    method = refreshed(task, batch)
    method.scores.total.copy_(method.scores.mass * torch.tensor([0.1, 0.9, 0.5]))
    method.after_step(Progress(0, 100))
    assert method.sources == [1, 2]
    exemplar, second = (opinion(snapshot, batch) for snapshot in method.snapshots)
    torch.testing.assert_close(exemplar, opinion(method.peers[1], batch))
    torch.testing.assert_close(second, opinion(method.peers[2], batch))
    logits = [torch.zeros(2, task.classes, *task.size, requires_grad=True) for _ in range(3)]
    method.follow(logits, batch.unlabeled("weak")).backward()
    for k, target in enumerate([exemplar, second, exemplar]):
        expected = torch.zeros_like(logits[k]).requires_grad_()
        soft = L.sharpen(target, method.config.sharpening)
        L.soft_supervised_loss(expected, soft, torch.ones_like(soft[:, :1])).backward()
        torch.testing.assert_close(logits[k].grad, expected.grad)
    assert not torch.allclose(exemplar, second)


def test_no_network_gets_a_gradient_from_its_own_snapshot(task, batch):
    method = refreshed(task, batch)
    reached = taught(method, method.losses(batch, Progress(100, 100))["soft"])
    assert reached == [True, True, True]
    assert all(p.grad is None for p in method.snapshots.parameters())
    method.sources = [0, 0]  # as if both copies were of one network
    assert taught(method, method.losses(batch, Progress(100, 100))["soft"]) == [False, True, True]


def test_without_a_second_snapshot_nobody_teaches_the_exemplar(task, batch):
    method = refreshed(task, batch, taught="others")
    assert len(method.snapshots) == 1
    reached = taught(method, method.losses(batch, Progress(100, 100))["soft"])
    assert reached == [k != method.best for k in range(3)]


def test_symmetric_mean_teaches_every_network(task, batch):
    method = refreshed(task, batch, target="symmetric_mean")
    assert len(method.snapshots) == 3
    assert taught(method, method.losses(batch, Progress(100, 100))["soft"]) == [True, True, True]


def test_random_sources_are_not_always_the_best_networks(task, batch):
    method = refreshed(task, batch, target="random")
    drawn = set()
    for step in range(20):
        torch.manual_seed(step)
        method.after_step(Progress(step, 100))
        drawn.add(method.sources[0])
        assert method.sources[0] != method.sources[1]
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
    method.sources = [0, 1]
    method.contrast([torch.randn(1, 64, *[8] * task.dims) for _ in range(3)])
    assert method.concerns() == []
    space = (8, 8) if task.dims == 2 else (4, 4, 4)
    told_apart = torch.eye(64).view(1, 64, *space)  # no two of 64 positions resemble each other
    for _ in range(500):
        method.contrast([told_apart] * 3)
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


@pytest.mark.parametrize(
    ("config", "labeled", "unlabeled"),
    [
        ({}, ["weak"] * 3, ["weak", "moderate", "strong"]),
        ({"labeled_view": "own"}, ["weak", "moderate", "strong"], ["weak", "moderate", "strong"]),
        ({"view_mode": "same"}, ["weak"] * 3, ["strong"] * 3),
    ],
    ids=["default", "own", "same"],
)
def test_labeled_images_are_shown_plainly_and_unlabeled_ones_in_the_view_of_the_network(
    task, batch, config, labeled, unlabeled
):
    method = built(task, **config)
    seen: list[torch.Tensor] = []
    for peer in method.peers:
        peer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    method.losses(batch, Progress(0, 100))
    for images, known, unknown in zip(seen, labeled, unlabeled, strict=True):
        assert torch.equal(images, torch.cat([batch.labeled(known), batch.unlabeled(unknown)]))


def test_two_views_are_the_weak_and_the_strong_one_and_take_two_networks(task):
    method = built(task, views=2)
    assert method.views == ("weak", "strong")
    assert len(method.peers) == method.networks == 2


def test_switching_a_term_off_removes_it(task, batch):
    method = refreshed(task, batch, contrastive=False, soft=False)
    assert set(method.losses(batch, Progress(50, 100))) == {"supervised"}


# The exemplar


@pytest.mark.parametrize("score", ["weak", "strong", "agreement"])
def test_networks_are_scored_on_one_view_for_all(task, batch, score):
    method = built(task, score=score)
    seen: list[torch.Tensor] = []
    for peer in method.peers:
        peer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    method.score(batch)
    expected = batch.unlabeled("weak") if score == "agreement" else batch.labeled(score)
    assert len(seen) == 3
    assert all(torch.equal(images, expected) for images in seen)


def test_scores_are_bias_corrected_running_means(task, batch):
    method = built(task, score_decay=0.9, score="strong")
    method.score(batch)
    once = method.scores.mean.clone()
    method.score(batch)
    torch.testing.assert_close(method.scores.mean, once)  # the same Dice twice has that Dice as its mean
    dice = [L.foreground_dice(predict(peer, batch.labeled("strong")).logits, batch.labels) for peer in method.peers]
    torch.testing.assert_close(once, torch.stack(dice))


class Says(torch.nn.Module):
    """A network that sees the same class everywhere."""

    def __init__(self, task: Task, label: int, certainty: float = 9) -> None:
        super().__init__()
        self.logits = certainty * torch.eye(task.classes)[label].view(1, -1, *[1] * task.dims)

    def forward(self, images: torch.Tensor) -> Output:
        return Output(self.logits.expand(len(images), -1, *images.shape[2:]))


def test_agreement_is_the_dice_with_the_mean_of_the_others(task, batch):
    method = built(task)
    method.peers = torch.nn.ModuleList(Says(task, label, certainty) for label, certainty in ((1, 1), (2, 2), (1, 3)))
    method.score(batch)
    assert method.scores.mean.tolist() == [1, 0, 0]  # the third is surer than the second, the second than the first


@pytest.mark.parametrize("score", ["strong", "agreement"])
def test_a_batch_without_foreground_is_no_news(task, batch, score):
    method = built(task, score=score)
    method.peers = torch.nn.ModuleList(Says(task, label) for label in (1, 1, 2))
    method.score(batch)
    before = method.scores.mean.clone()
    assert before.any()
    method.peers = torch.nn.ModuleList(Says(task, 0) for _ in range(3))
    batch.labels.zero_()
    method.score(batch)
    assert torch.equal(before, method.scores.mean)


def test_the_best_network_becomes_the_exemplar_only_at_a_refresh(task):
    method = built(task, refresh=5)
    method.scores.update(torch.tensor([0.1, 0.5, 0.5]))
    method.after_step(Progress(3, 100))
    assert (method.best, method.sources) == (0, [-1, -1])
    method.after_step(Progress(4, 100))
    assert (method.best, method.sources) == (1, [1, 2])  # the lower index of equals
    assert method.predictors()["exemplar"] is method.peers[1]


def test_exemplar_scores_and_weights_depend_on_labeled_training_cases_alone(tmp_path, task):
    contract = MethodContract("mutual_exemplar", MutualExemplar, task.dims, tmp_path)
    partition = partition_for(MutualExemplar, make_splits(contract.dataset), contract.spec(), contract.dataset)
    changed = tiny_dataset(tmp_path / "changed.h5", task.dims, kept=set(partition.labeled))
    assert contract.trained.method.sources[0] >= 0  # soft supervision did take place
    other = contract.retrained("permuted", contract.spec(), changed)
    assert all(torch.equal(v, other[k]) for k, v in contract.weights.items())
    relabeled = tiny_dataset(tmp_path / "relabeled.h5", task.dims, kept=set(partition.unlabeled))
    third = contract.retrained("relabeled", contract.spec(), relabeled)
    assert not torch.equal(contract.weights["scores.total"], third["scores.total"])


def test_targets_can_be_fresher_than_a_pass_over_the_unlabeled_images():
    task = Task(1, 2, (32, 32), "unet_small", unlabeled_steps=170)
    assert built(task, refresh=20).refresh_steps == 20
    assert built(task, refresh="pass").refresh_steps == 170


def test_search_space_holds_the_defaults():
    defaults = MutualExemplar.Config()
    for name, values in MutualExemplar.space.items():
        assert getattr(defaults, name) in values
        assert all(getattr(MutualExemplar.Config(**{name: value}), name) == value for value in values)


def test_copies_are_told_apart_after_a_run_is_resumed(task, batch):
    method, resumed = refreshed(task, batch), built(task)
    resumed.load_state_dict(method.state_dict())
    assert (resumed.best, resumed.sources) == (method.best, method.sources)


def test_teachers_look_at_the_plainest_view(task, batch):
    method = refreshed(task, batch).eval()
    seen = []
    method.snapshots[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    assert "soft" in method.losses(batch, Progress(50, 100))
    assert torch.equal(seen[0], batch.unlabeled("weak"))
