"""Image and text: what a text says of an image teaches its encoder, as a start, and both are aligned, as a method."""

from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam, AdamW

from semiseg.image_text import OBJECTIVES, Pairing, admitted
from semiseg.method import Batch, Paper, Progress, predict
from semiseg.start import Start
from semiseg.texts import STUDY, TEXT


class ImageText(Start):
    """A critic tells pairs of an image and its text from others, which bounds the information that both share.

    Globally, the mean of the encoder's coarsest map is paired with the whole text. Locally, as is published, with one
    sentence drawn at random: the place that fits best is found, and the bound raised there. The encoder is handed on.
    Every pair has a place of its own: if all sentences are scored where the image's own one fits best, that place gives
    the own sentence away, and the loss falls without a look at the image (methods/README.md has figures).

    The public code has the global objective only, and its `infonce` is `dv` but for a constant: no pair of its own
    image is in the sum. Here it is the cross-entropy of both directions, whose bound cannot exceed ln N. Pairs of one
    study are no negatives, nor is an image with a text or sentence that stands in its own text, too. Its critic is a
    perceptron on both vectors (`joint`); the default is a cosine over a learned temperature, which learns from few
    pairs. Its text encoder, pre-trained on a hospital's notes, cannot be had; a small transformer on numbers of words
    takes its place and is trained along, at 3e-4 instead of 2e-5. With `text: minilm` it is a published encoder of
    sentences, frozen but for a last layer: few pairs would spoil it, and the vector of a sentence is computed once.
    """

    title = "Image-Text MI"
    paper = Paper(
        "Multimodal Representation Learning via Maximization of Local Mutual Information",
        "Liao, Moyer, Cha, Quigley, Berkowitz, Horng, Golland and Wells",
        "MICCAI 2021",
    )
    learns = "alignment"
    views = ("weak",)
    space: ClassVar = {"level": ("local", "global"), "objective": ("infonce", "dv")}

    class Config(Start.Config):
        level: Literal["local", "global"] = "local"
        objective: Literal["infonce", "dv", "jsd"] = "infonce"
        critic: Literal["separable", "joint"] = "separable"
        select: Literal["both", "positive"] = "both"  # the place: best for each sentence, or for the own one
        text: Literal["hashed", "minilm"] = "hashed"  # its encoder; the second is a package, `semiseg[minilm]`
        rate: float = Field(5e-4, gt=0)  # of Adam, for encoder and critic
        text_rate: float = Field(3e-4, gt=0)  # of AdamW

    def build(self) -> None:
        task, config = self.task, self.config
        self.model = self.network()
        for part in (self.model.decoder, self.model.head):
            part.requires_grad_(False)  # nothing here reads them
        channels = predict(self.model, torch.zeros(1, task.channels, *task.size)).encoder[-1].shape[1]
        self.pairing = Pairing(self.model.encoder, channels, config.critic, config.level == "local", config.text)
        for module in (self.model.encoder, self.pairing.critic):
            self.optimize(module, partial(Adam, lr=config.rate))
        self.optimize(self.pairing.text, partial(AdamW, lr=config.text_rate, weight_decay=0.1))

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        texts = batch.field(TEXT)
        told = self.pairing.told(texts)
        scores = self.pairing.of_batch(batch.images("weak"), told, self.config.select).float()
        counts = admitted(batch.field(STUDY), texts, told).to(scores.device)
        return {self.config.objective: OBJECTIVES[self.config.objective](scores, counts)}

    def predictors(self) -> dict[str, nn.Module]:
        return {"pairing": self.pairing}

    def handed_on(self) -> dict[str, Tensor]:
        return {f"encoder.{name}": value for name, value in self.model.encoder.state_dict().items()}
