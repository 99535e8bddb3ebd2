"""Mutual Exemplar: three networks on three views share information, and the best ones teach the others."""

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from semiseg import losses as L
from semiseg.method import Batch, Ensemble, Method, Paper, Progress, RunningMean, frozen_copy, predict
from semiseg.networks.features import feature_level, pointwise_head


class MutualExemplar(Method):
    """All networks see labelled images plainly, and network k view k of unlabelled ones, as in the paper's figure 1.

    The views share one geometry, so positions correspond, and a contrastive loss maximizes a lower bound of the mutual
    information between the networks' features. At every refresh the two best networks by running score are copied:
    the exemplar's copy teaches the others, and that of the second the exemplar, with what they are sure of in the
    plainest view. The score counts structures that the others see, so that one which a network alone marks costs it
    nothing; on ACDC the three networks end within a point of each other. Losses are sums over networks: each has the
    full gradient of its labels, like Supervised's.
    The paper leaves weights, temperatures, threshold, heads, refresh and score open; those below are this suite's.
    """

    title = "Mutual Exemplar"
    paper = Paper(
        "Learning Representations by Maximizing Mutual Information Across Views for Medical Image Segmentation",
        "Weng and Zhu",
        "MICCAI 2024",
    )
    networks = 3
    views: tuple[str, ...] = ("weak", "moderate", "strong")
    space: ClassVar[dict[str, tuple[Any, ...]]] = {"refresh": (20, 50, 100, 200), "soft_weight": (0.25, 0.5, 1.0, 2.0)}
    brief: ClassVar = {"refresh": 2, "score_every": 1, "confidence": 0.0}

    class Config(Method.Config):
        contrastive: bool = True
        soft: bool = True
        target: Literal["exemplar", "symmetric_mean", "random"] = "exemplar"
        taught: Literal["all", "others"] = "all"  # others: nobody teaches the exemplar
        total: Literal["sum", "mean"] = "sum"  # over networks; mean: each gets a third of Supervised's gradient
        labeled_view: Literal["weak", "own"] = "weak"  # own: the view in which a network sees unlabelled images
        views: Literal[2, 3] = 3  # two: the weak and the strong one
        view_mode: Literal["distinct", "same"] = "distinct"  # same: all see the strong one
        feature_level: Literal["auto", "first"] | int = "auto"  # a stride; auto: deepest with enough positions
        negatives: Literal["image", "batch"] = "image"
        positions: int = Field(256, ge=2)  # sampled per image
        temperature: float = Field(0.1, gt=0)
        contrastive_weight: float = Field(0.1, ge=0)
        soft_weight: float = Field(0.5, ge=0)
        ramp_up: float = Field(0.4, gt=0, le=1)  # fraction of the training after which the soft weight is full
        sharpening: float = Field(0.5, gt=0)  # temperature of the soft targets
        confidence: float = Field(0.7, ge=0, le=1)  # pixels whose target is less certain are ignored
        refresh: Annotated[int, Field(ge=1)] | Literal["pass"] = 50  # steps; pass: over the unlabelled images
        score: Literal["agreement", "strong", "weak"] = "agreement"  # on unlabelled images, or a view of labelled ones
        score_every: int = Field(10, ge=1)
        score_decay: float = Field(0.9, ge=0, lt=1)

    def build(self) -> None:
        task, config = self.task, self.config
        self.views = self.views if config.views == 3 else ("weak", "strong")
        self.networks = len(self.views)
        self.peers = nn.ModuleList(self.network() for _ in self.views)
        self.level = feature_level(self.peers[0], task.channels, task.size, config.feature_level, config.positions)
        self.heads = nn.ModuleList(pointwise_head(task.dims, self.level.channels, 128, 64) for _ in self.peers)
        copies = {"others": 1, "all": 2}[config.taught] if config.target != "symmetric_mean" else len(self.peers)
        self.snapshots = nn.ModuleList(frozen_copy(peer) for peer in self.peers[:copies])
        self.scores = RunningMean(len(self.peers), config.score_decay)
        self.saturation = RunningMean(1, 0.98)  # how much of its cap the information bound reaches
        self.best, self.sources = 0, [-1] * copies  # the exemplar, and what was copied (nothing before a refresh)
        self.refresh_steps = task.unlabeled_steps if config.refresh == "pass" else config.refresh

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        config, count = self.config, len(self.peers)
        outputs = [peer(self.images(batch, view)) for peer, view in zip(self.peers, self.views, strict=True)]
        split = [batch.split(output.logits) for output in outputs]
        losses = {"supervised": torch.stack([L.supervised_loss(own, batch.labels) for own, _ in split]).sum()}
        if config.contrastive:
            features = [head(o.encoder[self.level.position]) for head, o in zip(self.heads, outputs, strict=True)]
            losses["contrastive"] = config.contrastive_weight * count * self.contrast(features)
        if config.soft and self.sources[0] >= 0:
            weight = config.soft_weight * progress.ramp_up(config.ramp_up)
            losses["soft"] = weight * self.follow([unlabeled for _, unlabeled in split], batch.unlabeled("weak"))
        if progress.every(config.score_every):
            self.score(batch)
        return losses if config.total == "sum" else {name: loss / count for name, loss in losses.items()}

    def images(self, batch: Batch, view: str) -> Tensor:
        """What the network of a view sees."""
        labeled = batch.labeled("weak" if self.config.labeled_view == "weak" else view)
        return torch.cat([labeled, batch.unlabeled("strong" if self.config.view_mode == "same" else view)])

    def contrast(self, features: list[Tensor]) -> Tensor:
        """Mean InfoNCE over ordered pairs of networks; notes the information bound ln N − loss in nats."""
        config = self.config
        loss, readout = L.information_loss(features, config.positions, config.temperature, config.negatives)
        self.noted |= readout
        self.saturation.update(1 - loss / readout["information_cap"])
        return loss

    def follow(self, logits: list[Tensor], plain: Tensor) -> Tensor:
        """Soft supervision of every network by the first snapshot that is not its own, if there is one."""
        opinions = [predict(snapshot, plain).logits.softmax(1) for snapshot in self.snapshots]
        losses = []
        for k, own in enumerate(logits):
            others = [opinion for opinion, source in zip(opinions, self.sources, strict=True) if source != k]
            if teachers := opinions if self.config.target == "symmetric_mean" else others[:1]:
                target = torch.stack(teachers).mean(0)
                confident = (target.amax(1, keepdim=True) >= self.config.confidence).float()
                self.note(f"confident_fraction_{k + 1}", confident.mean())
                losses.append(L.soft_supervised_loss(own, L.sharpen(target, self.config.sharpening), confident))
        return torch.stack(losses).sum()

    def score(self, batch: Batch) -> None:
        """Update every network's running Dice, on one view for all: with the labels, or with the others' mean."""
        agreement = self.config.score == "agreement"
        images = batch.unlabeled("weak") if agreement else batch.labeled(self.config.score)
        says = torch.stack([predict(peer, images).logits.softmax(1) for peer in self.peers])
        labels = [(says.sum(0) - own).argmax(1) if agreement else batch.labels for own in says]
        dice = [L.foreground_dice(own, target) for own, target in zip(says, labels, strict=True)]
        self.scores.update(torch.stack(dice))
        self.noted |= {f"score_{k + 1}": score for k, score in enumerate(self.scores.mean)}

    def after_step(self, progress: Progress) -> None:
        if progress.every(self.refresh_steps):
            ranked = self.scores.mean.sort(descending=True, stable=True).indices  # of equals, the first leads
            self.best = int(ranked[0])
            sources = torch.randperm(len(ranked)) if self.config.target == "random" else ranked
            self.sources = sources[: len(self.snapshots)].tolist()
            for snapshot, source in zip(self.snapshots, self.sources, strict=True):
                snapshot.load_state_dict(self.peers[source].state_dict())
            self.note("exemplar", self.best + 1)

    def predictors(self) -> dict[str, nn.Module]:
        numbered = {f"network_{k + 1}": peer for k, peer in enumerate(self.peers)}
        return {"exemplar": self.peers[self.best], "ensemble": Ensemble(list(self.peers)), **numbered}

    def concerns(self) -> list[str]:
        never = "no refresh took place, so no network was an exemplar: train longer or lower refresh"
        capped = "the information bound stayed within 2 % of its cap: take a finer feature_level or negatives: batch"
        return [never] * (self.sources[0] < 0) + [capped] * bool(self.saturation.mean > 0.98)

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self.best, *self.sources])

    def set_extra_state(self, state: Tensor) -> None:
        self.best, *self.sources = state.tolist()
