"""Image and text: objectives against sums over pairs, and what must not have an effect."""

import math

import numpy as np
import pytest
import torch

from semiseg.image_text import (
    CRITICS,
    OBJECTIVES,
    JointCritic,
    Pairing,
    SeparableCritic,
    TextEncoder,
    admitted,
    donsker_varadhan,
    infonce,
    jensen_shannon_bound,
    tokens,
    word_number,
)
from semiseg.method import Batch, Progress, Task
from semiseg.methods.image_text import ImageText
from semiseg.networks import build_network

SCORES = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
TEXTS = ["one", "two", "three", "same", "same"]
COUNTS = admitted(["a", "a", "b", "c", "d"], TEXTS, TEXTS)


def test_pairs_of_one_study_or_of_equal_texts_do_not_count():
    expected = torch.ones(5, 5, dtype=torch.bool)
    for i, j in ((0, 1), (3, 4)):
        expected[i, j] = expected[j, i] = False
    assert torch.equal(COUNTS, expected)


def test_a_sentence_that_an_image_s_own_text_has_too_is_not_held_against_it():
    texts = ["The heart is large. No fluid is seen.", "No fluid is seen. A rib is broken.", "A rib is broken."]
    told = ["The heart is large.", "No fluid is seen.", "A rib is broken."]
    counts = admitted(["a", "b", "c"], texts, told)
    assert counts.tolist() == [[True, False, True], [True, True, False], [True, True, True]]


def test_infonce_is_the_sum_over_rows_and_columns():
    total = 0.0
    for s, m in ((SCORES, COUNTS), (SCORES.T, COUNTS.T)):
        for i in range(5):
            total -= s[i, i].item() - math.log(sum(math.exp(s[i, j]) for j in range(5) if m[i, j]))
    assert infonce(SCORES, COUNTS).item() == pytest.approx(total / 10, rel=1e-5)


def test_donsker_varadhan_and_jensen_shannon_are_sums_over_other_pairs():
    others = [SCORES[i, j].item() for i in range(5) for j in range(5) if i != j and COUNTS[i, j]]
    own = [SCORES[i, i].item() for i in range(5)]
    dv = math.log(sum(map(math.exp, others)) / len(others)) - sum(own) / 5
    assert donsker_varadhan(SCORES, COUNTS).item() == pytest.approx(dv, rel=1e-5)
    jsd = sum(math.log1p(math.exp(-s)) for s in own) / 5 + sum(math.log1p(math.exp(s)) for s in others) / len(others)
    assert jensen_shannon_bound(SCORES, COUNTS).item() == pytest.approx(jsd, rel=1e-5)


def test_infonce_and_donsker_varadhan_pull_differently():
    gradients = []
    for objective in (infonce, donsker_varadhan):
        scores = SCORES.clone().requires_grad_()
        objective(scores, COUNTS).backward()
        gradients.append(scores.grad)
    assert not torch.allclose(*gradients, atol=1e-3)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_pairs_that_do_not_count_have_no_gradient_and_a_batch_of_one_study_is_finite(name):
    scores = SCORES.clone().requires_grad_()
    OBJECTIVES[name](scores, COUNTS).backward()
    assert not scores.grad[~COUNTS].any()
    assert scores.grad[COUNTS].all()
    assert OBJECTIVES[name](SCORES, torch.eye(5, dtype=torch.bool)).isfinite()


def test_the_joint_critic_is_a_layer_on_both_vectors_side_by_side():
    critic = JointCritic(6, 4, 8)
    images, texts = torch.randn(2, 3, 6), torch.randn(5, 4)
    scores = critic(images, texts)
    weight = torch.cat([critic.image.weight, critic.text.weight], 1)
    both = torch.cat([images[1, 2], texts[4]])
    assert scores[1, 2, 4].item() == pytest.approx(critic.rest(weight @ both + critic.image.bias).item(), rel=1e-4)


def test_the_separable_critic_is_a_cosine_over_its_temperature():
    critic = SeparableCritic(6, 4, 8, temperature=0.2)
    images, texts = torch.randn(2, 3, 6), torch.randn(5, 4)
    scores = critic(images, texts)
    assert scores.shape == (2, 3, 5)
    wi, bi, wt, bt = (v.detach().double().numpy() for v in (*critic.image.parameters(), *critic.text.parameters()))
    for n in range(2):
        for place in range(3):
            a = wi @ images[n, place].numpy() + bi
            for m in range(5):
                b = wt @ texts[m].numpy() + bt
                cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
                assert scores[n, place, m].item() == pytest.approx(cosine / 0.2, abs=1e-5)


def test_words_are_numbered_alike_everywhere_whatever_their_case_and_signs():
    assert word_number("nodule") == 2697  # in every process
    first, second = tokens(["A nodule, left.", "a NODULE left"], 6)
    assert torch.equal(first, second)
    assert first[0] == 1
    assert tokens(["one two three four"], 3).tolist()[0][1:] == [word_number("one"), word_number("two")]


def test_padding_changes_no_vector_of_a_text():
    torch.manual_seed(0)
    encoder = TextEncoder().eval()
    alone, together = encoder(["a small nodule"]), encoder(["a small nodule", "one two three four five six seven"])
    assert torch.allclose(alone[0], together[0], atol=1e-5)


@pytest.mark.parametrize("name", CRITICS)
def test_scores_are_not_rounded_to_half_precision(name):
    critic = CRITICS[name](6, 4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        scores = critic(torch.randn(30, 1, 6), torch.randn(30, 4))
    assert scores.dtype == torch.float32
    assert len(scores.unique()) > 800


@pytest.fixture(params=CRITICS)
def pairing(request):
    torch.manual_seed(0)
    network = build_network("unet_small", 1, 2, (32, 32), None)
    channels = network(torch.zeros(1, 1, 32, 32)).encoder[-1].shape[1]
    return Pairing(network.encoder, channels, request.param, local=True).eval()


def test_the_place_of_the_own_sentence_scores_all_sentences_of_an_image(pairing):
    images, texts = torch.rand(3, 1, 32, 32), ["one two three", "four five six", "seven eight nine"]
    everywhere = pairing.critic(pairing.places(images), pairing.text(texts))
    positive, both = (pairing.of_batch(images, texts, select) for select in ("positive", "both"))
    for i in range(3):
        place = everywhere[i, :, i].argmax()
        for j in range(3):
            assert torch.allclose(positive[i, j], everywhere[i, place, j], atol=1e-5)
            assert torch.allclose(both[i, j], everywhere[i, :, j].max(), atol=1e-5)
        located = pairing.locate(images[i : i + 1], texts[i : i + 1])
        assert located.shape == (1, 2, 2)
        assert located.argmax() == place


def test_the_score_of_a_text_is_the_mean_over_its_sentences(pairing):
    images = torch.rand(2, 1, 32, 32)
    both = pairing(images, ["One two three. Four five six."])
    parts = pairing(images, ["One two three.", "Four five six."])
    assert torch.allclose(both[:, 0], parts.mean(1), atol=1e-5)


def test_a_sentence_of_a_text_is_no_negative_of_its_image_whatever_else_was_drawn_of_it(monkeypatch):
    method = ImageText(Task(1, 2, (32, 32), "unet_small"))
    fields = {
        "text": ["All the same.", "All the same. One is other.", "Another one altogether."],
        "study": ["a", "b", "c"],
    }
    method.pairing.told = lambda texts: (
        ["All the same.", "One is other.", "Another one altogether."] if texts == fields["text"] else None
    )
    batch = Batch({"weak": torch.rand(3, 1, 32, 32)}, torch.zeros(0), "012", read=lambda c, name: fields[name][int(c)])
    counted = []
    monkeypatch.setitem(OBJECTIVES, "infonce", lambda scores, counts: counted.append(counts) or scores.sum())
    method.losses(batch, Progress(0, 10))
    assert counted[0].tolist() == [[True, True, True], [False, True, True], [True, True, True]]
