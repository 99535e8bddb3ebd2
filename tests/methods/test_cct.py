"""CCT: who gets a gradient from what, and which features each decoder sees."""

import numpy as np
import pytest
import torch

from semiseg.losses import supervised_loss
from semiseg.method import Progress, Task, predict
from semiseg.methods.cct import CrossConsistencyTraining

END = Progress(100, 100)


def moved(module):
    return any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


def with_equal_decoders(task):
    method = CrossConsistencyTraining(task).eval()
    main = {k: v for k, v in method.segmenter.state_dict().items() if not k.startswith("encoder.")}
    for decoder in method.auxiliary:
        decoder.network.load_state_dict(main)
    return method


def seen_by(decoder):
    """A list that receives the feature maps a decoder is given."""
    seen = []
    decoder.register_forward_pre_hook(lambda module, inputs: seen.extend(inputs[0]))
    return seen


def test_consistency_moves_the_encoder_and_the_auxiliary_decoders_but_not_the_main_one(task, batch):
    method = CrossConsistencyTraining(task)
    method.losses(batch, END)["consistency"].backward()
    main = method.segmenter
    assert [moved(m) for m in (main.decoder, main.head)] == [False, False]
    assert moved(main.encoder)
    assert all(moved(decoder) for decoder in method.auxiliary)


def test_a_symmetric_gradient_reaches_the_main_decoder_too(task, batch):
    plain = CrossConsistencyTraining(task).eval()
    method = CrossConsistencyTraining(task, CrossConsistencyTraining.Config(symmetric_gradient=True)).eval()
    loss = method.losses(batch, END)["consistency"]
    assert loss.item() == plain.losses(batch, END)["consistency"].item()
    loss.backward()
    assert moved(method.segmenter.decoder)
    assert moved(method.segmenter.head)


def test_equal_decoders_without_perturbations_agree(task, batch):
    method = with_equal_decoders(task)
    assert method.losses(batch, END)["consistency"].item() == 0
    assert CrossConsistencyTraining(task).eval().losses(batch, END)["consistency"].item() > 0


def test_consistency_is_the_mean_squared_distance_to_the_main_prediction_on_unlabeled_images(task, batch):
    method = CrossConsistencyTraining(task).eval()
    output = method.segmenter(batch.images())
    p = output.logits[2:].softmax(1).detach().numpy()
    others = [
        decoder([f[2:] for f in output.encoder], output.logits).softmax(1).detach().numpy()
        for decoder in method.auxiliary
    ]
    expected = np.mean([np.mean((p - q) ** 2) for q in others])
    for step in (0, 50, 100):
        loss = method.losses(batch, Progress(step, 100))["consistency"].item()
        assert loss == pytest.approx(0.1 * np.exp(-5 * (1 - step / 100) ** 2) * expected, rel=1e-3)


def test_only_the_main_decoder_learns_from_labels(task, batch):
    method = CrossConsistencyTraining(task).eval()
    loss = method.losses(batch, END)["supervised"]
    expected = supervised_loss(method.segmenter(batch.labeled()).logits, batch.labels)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    loss.backward()
    assert moved(method.segmenter.decoder)
    assert not moved(method.auxiliary)


def test_all_decoders_can_learn_from_labels_with_equal_weight(task, batch):
    method = CrossConsistencyTraining(task, CrossConsistencyTraining.Config(supervise_auxiliary=True)).eval()
    losses = method.losses(batch, END)
    output = method.segmenter(batch.images())
    logits = [output.logits, *(decoder(output.encoder, output.logits) for decoder in method.auxiliary)]
    expected = np.mean([supervised_loss(x[:2], batch.labels).item() for x in logits])
    assert losses["supervised"].item() == pytest.approx(expected, rel=1e-4)
    plain = CrossConsistencyTraining(task).eval().losses(batch, END)
    assert losses["consistency"].item() == pytest.approx(plain["consistency"].item(), rel=1e-3)
    losses["supervised"].backward()
    assert all(moved(decoder) for decoder in method.auxiliary)


def test_every_auxiliary_decoder_sees_its_own_perturbation_of_every_unlabeled_map(task, batch):
    method = CrossConsistencyTraining(task)
    main, seen = seen_by(method.segmenter.decoder), [seen_by(decoder) for decoder in method.auxiliary]
    method.losses(batch, END)
    noise, dropout, attention = seen
    assert len(main) == len(noise) == len(dropout) == len(attention) == 5
    for clean, noisy, thinned, masked in zip(main, noise, dropout, attention, strict=True):
        clean = clean[2:]
        where = clean != 0
        ratio = (noisy / clean)[where]
        assert 0.7 - 1e-4 <= ratio.min() < ratio.max() <= 1.3 + 1e-4
        ratio = (thinned / clean)[where]
        assert ((ratio - 1 / 0.7).abs().lt(1e-4) | (ratio == 0)).all()
        assert 0.05 < (ratio == 0).float().mean() < 0.6
        assert torch.equal(masked, clean * masked.ne(0).any(1, keepdim=True))


def test_perturbations_rest_in_evaluation(task, batch):
    method = CrossConsistencyTraining(task)
    seen = seen_by(method.auxiliary[0])
    method.eval().losses(batch, END)
    clean = method.segmenter(batch.images()).encoder
    assert all(torch.equal(a, b[2:]) for a, b in zip(seen, clean, strict=True))


def test_auxiliary_decoders_rest_in_prediction(task, batch):
    method = CrossConsistencyTraining(task)
    seen = seen_by(method.auxiliary[0])
    (main,) = method.predictors().values()
    assert predict(main, batch.images()).logits.isfinite().all()
    assert not seen
    assert torch.equal(predict(main, batch.images()).logits, predict(main, batch.images()).logits)


def test_there_is_a_decoder_for_every_perturbation_and_they_start_differently(task):
    config = CrossConsistencyTraining.Config(perturbations=("channel_dropout", "feature_noise"))
    method = CrossConsistencyTraining(task, config)
    first, second = ([p for p in d.parameters() if p.ndim > 1] for d in method.auxiliary)
    assert all(not torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_encoder_and_four_decoders_have_the_published_number_of_parameters():
    method = CrossConsistencyTraining(Task(1, 4, (32, 32), "unet"))
    assert sum(p.numel() for p in method.parameters()) == 3_713_664


@pytest.mark.parametrize("network", ["unet_small", "nnunet_small", "swin_unet_small"])
def test_every_decoder_starts_from_weights_of_its_own_drawn_as_the_backbones_are(network):
    method = CrossConsistencyTraining(Task(1, 3, (32, 32), network))
    decoders = [method.segmenter.decoder, *(a.network.decoder for a in method.auxiliary)]
    states = [{k: v for k, v in d.state_dict().items() if v.ndim > 1 and v.numel() > 200} for d in decoders]
    for key in states[0]:
        drawn = [state[key] for state in states]
        assert not any(torch.equal(drawn[0], other) for other in drawn[1:])
        assert not torch.equal(drawn[1], drawn[2])
        assert drawn[1].std().item() == pytest.approx(drawn[0].std().item(), rel=0.4)
