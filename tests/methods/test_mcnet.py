"""MC-Net+: the consistency, who gets a gradient, and that the decoders differ."""

from itertools import permutations

import numpy as np
import pytest
import torch

from semiseg.losses import supervised_loss
from semiseg.method import Progress, Task, predict
from semiseg.methods.mcnet import MutualConsistency, mutual_consistency

END = Progress(100, 100)


def sharpened(p, temperature, sharpening):
    power = p ** (1 / temperature)
    rest = power.sum(1, keepdims=True) - power if sharpening == "classes" else (1 - p) ** (1 / temperature)
    return power / (power + rest)


@pytest.mark.parametrize("sharpening", ["complement", "classes"])
@pytest.mark.parametrize("classes", [2, 4])
def test_every_prediction_is_compared_with_every_other_one_sharpened(classes, sharpening):
    logits = torch.randn(3, 2, classes, 5, 5, generator=torch.Generator().manual_seed(0))
    p = np.exp(logits.numpy().astype(float))
    p /= p.sum(2, keepdims=True)
    pairs = permutations(range(3), 2)
    expected = np.mean([((p[i] - sharpened(p[j], 0.1, sharpening)) ** 2).mean() for i, j in pairs])
    assert mutual_consistency(logits, 0.1, sharpening).item() == pytest.approx(expected, rel=1e-4)


def test_two_classes_are_sharpened_alike_either_way():
    logits = torch.randn(3, 2, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    first, second = (mutual_consistency(logits, 0.1, sharpening) for sharpening in ("complement", "classes"))
    assert first.item() == pytest.approx(second.item(), rel=1e-4)


def test_certain_predictions_have_a_finite_gradient():
    logits = (80 * torch.eye(3)[None, :, :, None].expand(2, 3, 3, 2)[:, None].clone()).requires_grad_()
    mutual_consistency(logits.flatten(1, 2).transpose(1, 2), 0.1, "complement").backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("network", ["unet_small", "unet_3d_small", "vnet_small"])
def test_no_decoder_is_spared_the_dropout_of_the_network(network):
    """In a U-Net of 2D it sits in the encoder, which all share, in 3D in the network's own decoder."""
    size = (32, 32) if network == "unet_small" else (8, 24, 24)
    method = MutualConsistency(Task(1, 3, size, network)).train()
    images = torch.rand(2, 1, *size)
    output = method.segmenter(images)
    once, again = ([decoder(features, size) for decoder in method.auxiliary] for features in (output.encoder,) * 2)
    shared = method.segmenter(images).encoder[-1]
    for decoder, first, second in zip(method.auxiliary, once, again, strict=True):
        assert not torch.equal(first, second) or not torch.equal(shared, output.encoder[-1])
        if network != "unet_small":
            assert type(decoder.dropout) is type(method.segmenter.decoder.dropout)
            assert decoder.dropout.p == method.segmenter.decoder.dropout.p
            assert not torch.equal(first, second)
            assert torch.equal(*(decoder.eval()(output.encoder, size) for _ in range(2)))


def test_labels_and_consistency_reach_every_decoder(task, batch):
    for name in ("supervised", "consistency"):
        method = MutualConsistency(task)
        method.losses(batch, END)[name].backward()
        for part in (method.segmenter.encoder, method.segmenter.decoder, *method.auxiliary):
            assert any(p.grad is not None and p.grad.any() for p in part.parameters())


def test_every_decoder_gets_the_whole_gradient_of_its_labels(task, batch):
    method = MutualConsistency(task, MutualConsistency.Config(temperature=1.0)).eval()
    method.losses(batch, END)["supervised"].backward()
    together = [p.grad.clone() for p in method.segmenter.decoder.parameters()]
    method.zero_grad()
    supervised_loss(batch.split(method.segmenter(batch.images()).logits)[0], batch.labels).backward()
    for whole, parameter in zip(together, method.segmenter.decoder.parameters(), strict=True):
        torch.testing.assert_close(whole, parameter.grad)


def test_the_consistency_counts_all_pairs_of_decoders(task, batch):
    method = MutualConsistency(task, MutualConsistency.Config(consistency=0.5)).eval()
    output = method.segmenter(batch.images())
    size = batch.images().shape[2:]
    logits = torch.stack([output.logits, *(decoder(output.encoder, size) for decoder in method.auxiliary)])
    expected = 0.5 * 6 * mutual_consistency(logits, 0.1, "complement")
    torch.testing.assert_close(method.losses(batch, END)["consistency"], expected)


def test_further_decoders_rest_in_prediction(task, batch):
    method = MutualConsistency(task)
    seen = []
    method.auxiliary[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    (main,) = method.predictors().values()
    assert predict(main, batch.images()).logits.isfinite().all()
    assert not seen


@pytest.mark.parametrize("network", ["unet_small", "nnunet_small", "swin_unet_small", "enet"])
def test_the_decoders_stand_on_any_backbone(network):
    method = MutualConsistency(Task(1, 3, (32, 32), network))
    output = method.segmenter(torch.rand(2, 1, 32, 32))
    for decoder in method.auxiliary:
        assert decoder(output.encoder, (32, 32)).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(("network", "further"), [("unet_small", "transposed"), ("vnet_small", "linear")])
def test_no_further_decoder_upsamples_as_the_networks_own_does(network, further):
    size = (32, 32) if network == "unet_small" else (16, 32, 32)
    method = MutualConsistency(Task(1, 3, size, network))
    transposed = [any("Transpose" in type(m).__name__ for m in d.modules()) for d in method.auxiliary]
    modes = [{m.mode for m in d.modules() if isinstance(m, torch.nn.Upsample)} for d in method.auxiliary]
    assert transposed == [further == "transposed", False]
    assert modes == [{"trilinear"} if further == "linear" else set(), {"nearest"}]
    images = torch.rand(2, 1, *size)
    for decoder in method.auxiliary:
        assert decoder(method.segmenter(images).encoder, size).shape == (2, 3, *size)


def test_the_consistency_draws_on_both_sides_of_a_pair(task):
    """Its gradient is that of the value, as finite differences have it; a detached side would lack half of it."""
    logits = torch.randn(3, 1, 3, 2, 2, generator=torch.Generator().manual_seed(0)).double().requires_grad_()

    def loss(x):
        p = x.log_softmax(2).exp()
        sharp = ((x.log_softmax(2) - torch.log1p(-p)) / 0.5).sigmoid()
        return sum((p[i] - sharp[j]).square().mean() for i, j in permutations(range(3), 2)) / 6

    (found,) = torch.autograd.grad(mutual_consistency(logits, 0.5, "complement").double(), logits)
    (expected,) = torch.autograd.grad(loss(logits), logits)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-6)


def test_the_consistency_follows_the_ramp(task, batch):
    method = MutualConsistency(task).eval()
    first, last = (method.losses(batch, Progress(step, 100))["consistency"].item() for step in (0, 100))
    assert first / last == pytest.approx(np.exp(-5), rel=1e-3)
