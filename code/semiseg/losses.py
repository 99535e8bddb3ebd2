"""The mathematics that methods share, as pure functions. C counts classes, class 0 is the background.

Every function computes in float32 whatever the precision of the networks: half precision would blur small
probabilities and similarities.
"""

import math
from collections.abc import Callable, Sequence
from functools import wraps
from itertools import combinations
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

SMOOTH = 1e-5


def in_full_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run a function outside autocast with its tensors in float32."""

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        def cast(value: Any) -> Any:
            return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value

        device = next(v.device.type for v in (*args, *kwargs.values()) if isinstance(v, Tensor))
        with torch.autocast(device, enabled=False):
            return function(*map(cast, args), **{k: cast(v) for k, v in kwargs.items()})

    return wrapper


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """(batch, *space) class indices to (batch, C, *space) zeros and ones."""
    numbers = torch.arange(classes, device=labels.device).view(-1, *[1] * (labels.ndim - 1))
    return (labels[:, None] == numbers).float()  # in half the time of `F.one_hot`, which looks at all labels first


@in_full_precision
def dice_loss(probabilities: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Squared-denominator Dice loss, sums run over the batch and all pixels.

    (1/C) Σ_c [1 − (2 Σ m p_c q_c + ε) / (Σ m p_c² + Σ m q_c² + ε)], ε = 1e−5.

    Args:
        probabilities: p, (batch, C, *space).
        target: q, the same shape; hard or soft.
        mask: m, (batch, 1, *space); pixels at 0 take no part.
    """
    over = [d for d in range(probabilities.ndim) if d != 1]

    def total(values: Tensor) -> Tensor:
        return (values if mask is None else mask * values).sum(over)

    overlap, both = total(probabilities * target), total(probabilities.square()) + total(target.square())
    return (1 - (2 * overlap + SMOOTH) / (both + SMOOTH)).mean()


@in_full_precision
def supervised_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """½ (cross-entropy + Dice) of (batch, C, *space) logits and (batch, *space) labels."""
    target = one_hot(labels, logits.shape[1])
    return 0.5 * (F.cross_entropy(logits, labels) + dice_loss(logits.softmax(1), target))


@in_full_precision
def soft_supervised_loss(
    logits: Tensor, target: Tensor, mask: Tensor, mean_over: Literal["kept", "all"] = "kept"
) -> Tensor:
    """½ (cross-entropy + Dice) against soft targets q, weighted by the mask m; 0 if it is 0 everywhere.

    The cross-entropy part is Σ m (−Σ_c q_c ln p_c) / N, where N counts the kept pixels, max(Σ m, 1), or all of
    them; the latter lets the cross-entropy grow with the number of kept pixels.

    Args:
        logits: (batch, C, *space).
        target: (batch, C, *space), sums to 1 over C.
        mask: (batch, 1, *space) within [0, 1], mostly zeros and ones; (1, 1, *space) where all items have the same.
        mean_over: the pixels that N counts.
    """
    mask = mask.expand_as(target[:, :1])  # or the pixels of one item would count for all
    cross_entropy = mask * -(target * logits.log_softmax(1)).sum(1, keepdim=True)
    cross_entropy = cross_entropy.sum() / mask.sum().clamp(min=1) if mean_over == "kept" else cross_entropy.mean()
    return 0.5 * (cross_entropy + dice_loss(logits.softmax(1), target, mask))


@torch.no_grad()
@in_full_precision
def confident_labels(logits: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """The most probable class, and 1 where its probability reaches the threshold, else 0; both (batch, 1, *space)."""
    confidence, labels = logits.softmax(1).max(1, keepdim=True)
    return labels, (confidence >= threshold).float()


@in_full_precision
def foreground_dice(logits: Tensor, labels: Tensor) -> Tensor:
    """Dice of the hard prediction, mean over items and foreground classes that are present; NaN if none is."""
    classes = logits.shape[1]
    prediction = one_hot(logits.argmax(1), classes)[:, 1:].flatten(2)
    target = one_hot(labels, classes)[:, 1:].flatten(2)
    dice = 2 * (prediction * target).sum(2) / (prediction.sum(2) + target.sum(2)).clamp(min=1)
    present = target.sum(2) > 0
    return (dice * present).sum() / present.sum()


@in_full_precision
def mse_consistency(logits: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance between the softmax of the logits and a target distribution."""
    return F.mse_loss(logits.softmax(1), target)


@in_full_precision
def masked_mse(logits: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Σ m (p_c − q_c)² / (C Σ m + 1e−16) with p the softmax of the logits; 0 where no pixel is let through.

    Args:
        logits: (batch, C, *space).
        target: q, the same shape.
        mask: m, (batch, 1, *space) zeros and ones; (1, 1, *space) where all items have the same.
    """
    mask = mask.expand_as(target[:, :1])
    distance = mask * (logits.softmax(1) - target).square()
    return distance.sum() / (logits.shape[1] * mask.sum() + 1e-16)


@in_full_precision
def kl_consistency(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over items and pixels of KL(target ‖ softmax(logits)), in nats."""
    return F.kl_div(logits.log_softmax(1), target, reduction="none").sum(1).mean()


@in_full_precision
def relation_loss(student: Tensor, teacher: Tensor, others: Tensor, temperature: float) -> Tensor:
    """How differently two networks relate an item to the same others, mean over items: KL(t ‖ s) in nats.

    s = softmax over others k of cos(student, k) / T, and t likewise of the teacher, which gets no gradient.

    Args:
        student: (n, D), or (n, windows, D) with others of their own for every window.
        teacher: the same shape.
        others: (K, D), or (K, windows, D).
    """
    memory = F.normalize(others, dim=-1)

    def related(items: Tensor) -> Tensor:
        return torch.einsum("n...d,k...d->n...k", F.normalize(items, dim=-1), memory) / temperature

    target = related(teacher.detach()).log_softmax(-1)
    return F.kl_div(related(student).log_softmax(-1), target, reduction="none", log_target=True).sum(-1).mean()


@in_full_precision
def weighted_kl(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean over images of Σ w KL(softmax(target) ‖ softmax(logits)) / (Σ w + 1e−7), sums over pixels."""
    divergence = F.kl_div(logits.log_softmax(1), target.log_softmax(1), reduction="none", log_target=True)
    divergence = divergence.sum(1, keepdim=True)
    return ((weight * divergence).flatten(1).sum(1) / (weight.flatten(1).sum(1) + 1e-7)).mean()


@in_full_precision
def symmetric_kl(first: Tensor, second: Tensor) -> Tensor:
    """½ [KL(p ‖ q) + KL(q ‖ p)] = ½ Σ_c (p_c − q_c)(ln p_c − ln q_c) in nats, mean over items and pixels.

    p and q are the softmax of two (batch, C, *space) logits; gradients reach both.
    """
    log_p, log_q = first.log_softmax(1), second.log_softmax(1)
    return 0.5 * ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(1).mean()


@in_full_precision
def jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    """½ [KL(p ‖ m) + KL(q ‖ m)], m = ½ (p + q), between 0 and ln 2 nats, mean over items and pixels.

    p and q are the softmax of two (batch, C, *space) logits; gradients reach both.
    """
    log_p, log_q = first.log_softmax(1), second.log_softmax(1)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return 0.5 * (log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)).sum(1).mean()


@in_full_precision
def entropy(probabilities: Tensor) -> Tensor:
    """−Σ_c p_c ln(p_c + 1e−6) in nats, (batch, C, *space) to (batch, 1, *space)."""
    return -(probabilities * (probabilities + 1e-6).log()).sum(1, keepdim=True)


@in_full_precision
def sureness(probabilities: Tensor) -> Tensor:
    """1 + Σ_c p_c ln p_c / ln C, between 0 where all are alike and 1; (batch, C, *space) to (batch, 1, *space)."""
    p = probabilities.clamp(min=1e-8)
    return 1 + (p * p.log()).sum(1, keepdim=True) / math.log(p.shape[1])


@in_full_precision
def taken_for(logits: Tensor, real: bool) -> Tensor:
    """Cross-entropy of a discriminator's logits with "real" or "made": mean of −ln σ(x), or of −ln(1 − σ(x))."""
    return F.softplus(-logits if real else logits).mean()


@in_full_precision
def sharpen(probabilities: Tensor, temperature: float) -> Tensor:
    """p_c^{1/T} / Σ_c p_c^{1/T}."""
    return (probabilities.clamp(min=1e-8).log() / temperature).softmax(1)


@in_full_precision
def one_vs_rest(logits: Tensor) -> Tensor:
    """Binary logits of every foreground class: sigmoid of the result is the softmax probability.

    (batch, C, *space) to (batch, C − 1, *space): logit_c − ln Σ_{k≠c} e^{logit_k}, for C = 2 logit₁ − logit₀. Its
    gradient stays however sure a network is, and wrong.
    """
    classes = range(1, logits.shape[1])
    others = [torch.cat([logits[:, :c], logits[:, c + 1 :]], 1).logsumexp(1) for c in classes]
    return logits[:, 1:] - torch.stack(others, 1)


def box_mean(images: Tensor, window: int) -> Tensor:
    """Mean over a centred square or cube, zero beyond the border; axis by axis, which costs far less in 3D.

    The window is the largest odd length that is no longer than what is asked for, and no longer than the axis.
    """
    axes = images.ndim - 2
    pool = F.avg_pool2d if axes == 2 else F.avg_pool3d
    for axis in range(axes):
        length = min(window, images.shape[2 + axis])
        kernel = [length - 1 + length % 2 if axis == a else 1 for a in range(axes)]
        images = pool(images, kernel, 1, [k // 2 for k in kernel])
    return images


@in_full_precision
def structure_loss(
    logits: Tensor, target: Tensor, window: int, form: Literal["product", "agreement"] = "product"
) -> Tensor:
    """Cross-entropy plus IoU, both weighted by how close a pixel is to the target's boundary.

    ω = 1 + 5 |avgpool(y) − y|; Σ ω BCE / Σ ω + 1 − (Σ ω q y + 1) / (Σ ω (q + y) − Σ ω q y + 1) with
    q = sigmoid(logits), sums over the pixels of one item and class, mean over items and classes. An item without
    the class has no overlap, and only its cross-entropy counts.

    This IoU is least at q = y only for hard targets: it raises q wherever a soft y exceeds J / (1 + J), where J is
    the IoU so far. With q² + y² in place of q + y (`form: agreement`) it is least at q = y for any target.

    Args:
        logits: (batch, channels, *space) binary logits.
        target: y, the same shape, within [0, 1].
        window: side of the averaging window in pixels.
        form: of the IoU.
    """
    weight = 1 + 5 * (box_mean(target, window) - target).abs()
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    q = logits.sigmoid()

    def total(values: Tensor) -> Tensor:
        return (weight * values).flatten(2).sum(2)

    overlap = total(q * target)
    both = total(q + target) if form == "product" else total(q.square() + target.square())
    iou = 1 - (overlap + 1) / (both - overlap + 1)
    present = target.flatten(2).amax(2) > 0
    return (total(bce) / weight.flatten(2).sum(2) + iou * present).mean()


def sample_positions(features: Tensor, number: int) -> Tensor:
    """For each image of (batch, D, *space), `number` distinct pixel positions (all, if there are fewer)."""
    pixels = features[0, 0].numel()
    keys = torch.rand(len(features), pixels, device=features.device)
    return keys.topk(min(number, pixels), dim=1).indices


@in_full_precision
def at_positions(features: Tensor, positions: Tensor) -> Tensor:
    """Unit vectors at the sampled positions: (batch, D, *space) and (batch, P) to (batch, P, D)."""
    flat = features.flatten(2).gather(2, positions[:, None].expand(-1, features.shape[1], -1))
    return F.normalize(flat.transpose(1, 2), dim=2)


def rows(values: Tensor) -> Tensor:
    """(batch, D, *space) to (batch · positions, D)."""
    return values.movedim(1, -1).flatten(0, -2)


@in_full_precision
def similarities(
    queries: Tensor, keys: Tensor, temperature: float, candidates: Literal["image", "batch"] = "image"
) -> Tensor:
    """Scaled inner products of queries with their candidates.

    (batch, P, D) twice to (batch, P, P) with candidates from the same image, or to (1, batch·P, batch·P)
    with candidates from all images. The diagonal holds the pairs at the same position.
    """
    if candidates == "batch":
        queries, keys = queries.flatten(0, 1)[None], keys.flatten(0, 1)[None]
    return queries / temperature @ keys.transpose(1, 2)  # scales P·D numbers rather than P²


@in_full_precision
def attraction_loss(similarity: Tensor, of: Literal["queries", "keys"] = "queries") -> Tensor:
    """InfoNCE: −ln( e^{s_ii} / Σ_j e^{s_ij} ), mean over images and positions; the positive counts once.

    Of the keys, which look for the queries among the same candidates, it is the loss of the transposed similarity.
    """
    images, positions = similarity.shape[:2]
    own = torch.arange(positions, device=similarity.device).repeat(images, 1)
    if of == "keys":
        return F.cross_entropy(similarity, own)
    return F.cross_entropy(similarity.flatten(0, 1), own.flatten())  # P classes; fused, it saves passes over P²


def information_loss(
    features: Sequence[Tensor], positions: int, temperature: float, candidates: Literal["image", "batch"] = "image"
) -> tuple[Tensor, dict[str, Tensor | float]]:
    """Mean attraction loss over all ordered pairs of networks, and what can be read off it.

    A network's features at up to `positions` random positions of every image look for those of another network at
    the same positions, among N candidates. ln N − loss is a lower bound of the mutual information in nats, as far
    as candidates are independent: `information_1_2` and so on, `information` is their mean, `information_cap` ln N.

    Args:
        features: of every network, (batch, D, *space).
    """
    sampled = sample_positions(features[0], positions)
    vectors = [at_positions(feature, sampled) for feature in features]
    number = sampled.numel() if candidates == "batch" else sampled.shape[1]
    losses = {}
    for a, b in combinations(range(len(vectors)), 2):
        similarity = similarities(vectors[a], vectors[b], temperature, candidates)  # of both directions
        losses[f"{a + 1}_{b + 1}"] = attraction_loss(similarity)
        losses[f"{b + 1}_{a + 1}"] = attraction_loss(similarity, of="keys")
    loss, cap = torch.stack([*losses.values()]).mean(), math.log(number)
    bounds = {f"information_{pair}": cap - value.detach() for pair, value in losses.items()}
    summary = {"information": cap - loss.detach(), "information_candidates": number, "information_cap": cap}
    return loss, {**bounds, **summary}


@in_full_precision
def prototype_loss(anchors: Tensor, prototype: Tensor, bank: Tensor, drawn: Tensor, temperature: float) -> Tensor:
    """−mean ln( e^{cos(a, μ)/T} / (e^{cos(a, μ)/T} + Σ_j e^{cos(a, n_j)/T}) ); the bank's rows n are drawn by number.

    Args:
        anchors: a, (A, D).
        prototype: μ, (D).
        bank: (capacity, D).
        drawn: (A, negatives) numbers of rows.
    """
    a = F.normalize(anchors, dim=1)
    own = a @ F.normalize(prototype, dim=0)[:, None]
    others = (a @ F.normalize(bank, dim=1).T).gather(1, drawn)
    scores = torch.cat([own, others], 1) / temperature
    return (scores.logsumexp(1) - scores[:, 0]).mean()


@in_full_precision
def neighbour_loss(vectors: Tensor, latest: Tensor, pool: Tensor, number: int) -> Tensor:
    """Mean of 2 − 2 ⟨z, p⟩ over the pool's vectors p that are nearest to the teacher's z of the same image."""
    pool = F.normalize(pool, dim=1)
    nearest = (latest @ pool.T).topk(min(number, len(pool)), 1).indices
    return (2 - 2 * (vectors @ pool.T).gather(1, nearest)).mean()


@in_full_precision
def repulsion_loss(similarity: Tensor) -> Tensor:
    """ln( 1 + Σ_{j≠i} e^{s_ij} ), mean over images and positions: no pair should be similar."""
    others = similarity.masked_fill(torch.eye(similarity.shape[1], dtype=torch.bool, device=similarity.device), 0)
    return others.logsumexp(2).mean()
