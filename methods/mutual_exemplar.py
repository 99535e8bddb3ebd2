"""Mutual Exemplar: three networks on three views share information, and the best one teaches the others."""

import math
from collections.abc import Sequence
from itertools import permutations
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from semiseg import losses as L
from semiseg.method import Batch, Ensemble, Method, Paper, Progress, RunningMean, frozen_copy, predict
from semiseg.networks.features import feature_level, pointwise_head


class MutualExemplar(Method):
    """Network k always sees view k of an image; all views share one geometry, so positions correspond.

    A contrastive loss maximizes a lower bound of the mutual information between the networks' features. The
    exemplar, the network with the best running Dice on labelled training images, is copied at every refresh,
    and the copy's confident opinion of the plainest view is the soft target of the other networks.

    The paper leaves weights, temperatures, threshold, heads and the refresh open; those below are this suite's.
    """

    title = "Mutual Exemplar"
    paper = Paper(
        "Learning Representations by Maximizing Mutual Information Across Views for Medical Image Segmentation",
        "Weng and Zhu",
        "MICCAI 2024",
    )
    networks = 3
    views: Sequence[str] = ("weak", "moderate", "strong")
    brief: ClassVar = {"refresh": 2, "score_every": 1, "confidence": 0.0}

    class Config(Method.Config):
        contrastive: bool = True
        soft: bool = True
        target: Literal["exemplar", "symmetric_mean", "random"] = "exemplar"
        views: Literal[2, 3] = 3  # two: the weak and the strong one
        view_mode: Literal["distinct", "same"] = "distinct"  # same: every network sees the same images
        feature_level: Literal["auto", "first"] | int = "auto"  # a stride; auto: deepest with enough positions
        negatives: Literal["image", "batch"] = "image"
        positions: int = Field(256, ge=2)  # sampled per image
        temperature: float = Field(0.1, gt=0)
        contrastive_weight: float = Field(0.1, ge=0)
        soft_weight: float = Field(0.5, ge=0)
        ramp_up: float = Field(0.4, gt=0, le=1)  # fraction of the training after which the soft weight is full
        sharpening: float = Field(0.5, gt=0)  # temperature of the soft targets
        confidence: float = Field(0.7, ge=0, le=1)  # pixels whose target is less certain are ignored
        refresh: int = Field(100, ge=1)  # steps between refreshes, or a pass over the unlabelled set if longer
        score_every: int = Field(10, ge=1)
        score_decay: float = Field(0.9, ge=0, lt=1)

    def build(self) -> None:
        task, config = self.task, self.config
        self.views = self.views if config.views == 3 else ("weak", "strong")
        self.networks = len(self.views)
        self.peers = nn.ModuleList(self.network() for _ in self.views)
        self.level = feature_level(self.peers[0], task.channels, task.size, config.feature_level, config.positions)
        self.heads = nn.ModuleList(pointwise_head(task.dims, self.level.channels, 128, 64) for _ in self.peers)
        sources = len(self.peers) if config.target == "symmetric_mean" else 1
        self.snapshots = nn.ModuleList(frozen_copy(peer) for peer in self.peers[:sources])
        self.scores = RunningMean(len(self.peers), config.score_decay)
        self.saturation = RunningMean(1, 0.98)  # how much of its cap the information bound reaches
        self.best, self.source = 0, -1  # the exemplar, and what was copied (nothing before the first refresh)
        self.refresh_steps = max(config.refresh, task.unlabeled_steps)

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        outputs = [peer(self.images(batch, view)) for peer, view in zip(self.peers, self.views, strict=True)]
        split = [batch.split(output.logits) for output in outputs]
        losses = {"supervised": torch.stack([L.supervised_loss(own, batch.labels) for own, _ in split]).mean()}
        if self.config.contrastive:
            features = [head(o.encoder[self.level.position]) for head, o in zip(self.heads, outputs, strict=True)]
            losses["contrastive"] = self.config.contrastive_weight * self.contrast(features)
        if self.config.soft and self.source >= 0:
            weight = self.config.soft_weight * progress.ramp_up(self.config.ramp_up)
            losses["soft"] = weight * self.follow([unlabeled for _, unlabeled in split], batch.unlabeled("weak"))
        if progress.every(self.config.score_every):
            self.score(batch)
        return losses

    def images(self, batch: Batch, view: str) -> Tensor:
        """What the network of a view sees."""
        if self.config.view_mode == "same":
            return torch.cat([batch.labeled("weak"), batch.unlabeled("strong")])
        return batch.images(view)

    def contrast(self, features: list[Tensor]) -> Tensor:
        """Mean InfoNCE over ordered pairs of networks; notes the information bound ln N − loss in nats."""
        positions = L.sample_positions(features[0], self.config.positions)
        vectors = [L.at_positions(feature, positions) for feature in features]
        candidates = positions.numel() if self.config.negatives == "batch" else positions.shape[1]
        cap = math.log(candidates)
        losses = []
        for a, b in permutations(range(len(vectors)), 2):
            similarity = L.similarities(vectors[a], vectors[b], self.config.temperature, self.config.negatives)
            losses.append(L.attraction_loss(similarity))
            self.note(f"information_{a + 1}_{b + 1}", cap - losses[-1])
        mean = torch.stack(losses).mean()
        self.note("information", cap - mean)
        self.note("information_candidates", candidates)
        self.note("information_cap", cap)
        self.saturation.update((cap - mean) / cap)
        return mean

    def follow(self, logits: list[Tensor], plain: Tensor) -> Tensor:
        """Soft supervision by the snapshot, for every network but the copied one."""
        target = torch.stack([predict(s, plain).logits.softmax(1) for s in self.snapshots]).mean(0)
        confident = (target.amax(1, keepdim=True) >= self.config.confidence).float()
        self.note("confident_fraction", confident.mean())
        soft = L.sharpen(target, self.config.sharpening)
        copied = -1 if self.config.target == "symmetric_mean" else self.source
        losses = [L.soft_supervised_loss(x, soft, confident) for k, x in enumerate(logits) if k != copied]
        return torch.stack(losses).mean()

    def score(self, batch: Batch) -> None:
        """Update every network's running Dice on one common view of the labelled images."""
        images = batch.labeled("weak")
        dice = [L.foreground_dice(predict(peer, images).logits, batch.labels) for peer in self.peers]
        self.scores.update(torch.stack(dice))
        for k, score in enumerate(self.scores.mean):
            self.note(f"score_{k + 1}", score)

    def after_step(self, progress: Progress) -> None:
        if progress.every(self.refresh_steps):
            self.best = int(self.scores.mean.argmax())  # the first of equals
            random = self.config.target == "random"
            self.source = int(torch.randint(len(self.peers), ())) if random else self.best
            copied = self.peers if len(self.snapshots) > 1 else [self.peers[self.source]]
            for snapshot, peer in zip(self.snapshots, copied, strict=True):
                snapshot.load_state_dict(peer.state_dict())
            self.note("exemplar", self.best + 1)

    def predictors(self) -> dict[str, nn.Module]:
        numbered = {f"network_{k + 1}": peer for k, peer in enumerate(self.peers)}
        return {"exemplar": self.peers[self.best], "ensemble": Ensemble(list(self.peers)), **numbered}

    def concerns(self) -> list[str]:
        never = "no refresh took place, so no network was an exemplar: train longer or lower refresh"
        capped = "the information bound stayed within 2 % of its cap: take a finer feature_level or negatives: batch"
        return [never] * (self.source < 0) + [capped] * bool(self.saturation.mean > 0.98)

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self.best, self.source])

    def set_extra_state(self, state: Tensor) -> None:
        self.best, self.source = state.tolist()
