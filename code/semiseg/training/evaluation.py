"""Prediction of whole cases."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from semiseg.data.cropping import region
from semiseg.data.scale import from_training, to_training
from semiseg.method import Ensemble, Task, predict
from semiseg.training.precision import autocast

SLICES_AT_ONCE = 64


@torch.no_grad()
def predict_case(
    predictors: Sequence[nn.Module], image: np.ndarray, task: Task, device: torch.device, precision: str
) -> list[np.ndarray]:
    """What each predictor makes of a (channels, *space) image: class indices (*space) at its own resolution.

    2D: the image, or every slice of a volume, is resized to the training size and the probabilities are
    resized back. 3D, and 2D with windows that lie anywhere: sliding windows of the training size that overlap by half,
    weighted by a Gaussian; with a `stride` of the task so many voxels apart and weighted alike. What a central window
    leaves out is background.
    """
    seen = region(task.crop, image.shape)
    values = torch.tensor(image[seen], device=device)
    values = values.float() / 255 if values.dtype == torch.uint8 else values.float()

    def probabilities(batch: Tensor) -> tuple[Tensor, ...]:
        with autocast(precision, device, task.dims):
            return _probabilities(predictors, batch)

    def slide(images: Tensor, at_once: int) -> tuple[Tensor, ...]:
        from monai.inferers.utils import sliding_window_inference  # seconds of imports that whole images need not pay

        if task.stride:  # half a voxel less than what overlaps, since MONAI rounds the distance down
            overlap = [max(0.0, 1 - (step + 0.5) / side) for step, side in zip(task.stride, task.size, strict=True)]
            predicted = sliding_window_inference(images, task.size, at_once, probabilities, overlap, mode="constant")
        else:
            predicted = sliding_window_inference(images, task.size, at_once, probabilities, 0.5, mode="gaussian")
        return (predicted,) if isinstance(predicted, Tensor) else tuple(predicted)

    if task.dims == 3:
        chunks = [[found[0].argmax(0) for found in slide(values[None], 4)]]
    else:
        slices = values[None] if values.ndim == 3 else values.transpose(0, 1)
        chunks = []
        for chunk in slices.split(SLICES_AT_ONCE):
            scaled = to_training(chunk, task.size, task.crop)
            whole = tuple(scaled.shape[2:]) == tuple(task.size)
            small = probabilities(scaled) if whole else slide(scaled, SLICES_AT_ONCE)
            chunks.append([from_training(p, chunk.shape[2:], task.size, task.crop).argmax(1) for p in small])
    masks = []
    for parts in zip(*chunks, strict=True):
        mask = np.zeros(image.shape[1:], np.uint8)
        mask[seen] = torch.cat(parts).to(torch.uint8).reshape(values.shape[1:]).cpu().numpy()
        masks.append(mask)
    return masks


def _probabilities(predictors: Sequence[nn.Module], images: Tensor) -> tuple[Tensor, ...]:
    """Each predictor's class probabilities; a network that is also part of an ensemble is asked once."""
    known: dict[nn.Module, Tensor] = {}

    def ask(predictor: nn.Module) -> Tensor:
        if isinstance(predictor, Ensemble):
            return torch.stack([ask(network) for network in predictor.networks]).mean(0)
        if predictor not in known:
            known[predictor] = predict(predictor, images).logits.float().softmax(1)
        return known[predictor]

    return tuple(ask(predictor).clone() for predictor in predictors)  # sliding windows weigh them in place
