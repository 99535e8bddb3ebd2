"""Relations to earlier images: every window meets those of its own place, and images are not mixed up with windows."""

import numpy as np
import pytest
import torch

from semiseg.networks import Output
from semiseg.relations import Description, Earlier, Guess

WINDOWS, SHAPE = 4, (2, 2, 2)  # windows of an image, and their maps


def said_of(images):
    """Vectors of images, and maps of their windows, image by image."""
    return torch.randn(images, 3), torch.randn(images * WINDOWS, *SHAPE)


def softmax(scores):
    e = np.exp(scores - np.max(scores))
    return e / e.sum()


def related(vector, others, temperature):
    cosines = [vector @ other / np.linalg.norm(vector) / np.linalg.norm(other) for other in others]
    return softmax(np.array(cosines) / temperature)


def test_a_window_is_related_to_earlier_windows_of_the_same_place():
    torch.manual_seed(0)
    earlier = Earlier(5, said_of(1))
    student, teacher = said_of(2), said_of(2)
    expected = [0.0, 0.0]
    for i in range(2):
        s, t = (related(v[0][i].numpy(), earlier.latent.rows.numpy(), 0.2) for v in (student, teacher))
        expected[0] += float((t * np.log(t / s)).sum()) / 2
        for w in range(WINDOWS):
            there = earlier.windows.rows[:, w].numpy()
            s, t = (related(v[1][i * WINDOWS + w].flatten().numpy(), there, 0.2) for v in (student, teacher))
            expected[1] += float((t * np.log(t / s)).sum()) / (2 * WINDOWS)
    assert [loss.item() for loss in earlier.losses(student, teacher, 0.2)] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("capacity", [3, 2, 1])
def test_windows_of_an_image_are_remembered_together_and_in_order(capacity):
    torch.manual_seed(0)
    earlier = Earlier(capacity, said_of(1))
    before = earlier.latent.rows.clone(), earlier.windows.rows.clone()
    latent, windows = said_of(2)
    earlier.push((latent, windows))
    for i in range(capacity):
        if i < 2:
            assert torch.equal(earlier.latent.rows[i], latent[i])
            for w in range(WINDOWS):
                assert torch.equal(earlier.windows.rows[i, w], windows[i * WINDOWS + w].flatten())
        else:
            assert torch.equal(earlier.latent.rows[i], before[0][i])
            assert torch.equal(earlier.windows.rows[i], before[1][i])


def test_an_image_is_described_alike_alone_and_among_others():
    torch.manual_seed(0)
    description = Description(2, 6, 3)
    logits, deep = torch.randn(3, 3, 32, 32), torch.randn(3, 6, 2, 2)
    latent, windows = description(Output(logits, (deep,)))
    assert len(windows) == 3 * 49
    for i in range(3):
        alone = description(Output(logits[i : i + 1], (deep[i : i + 1],)))
        torch.testing.assert_close(latent[i : i + 1], alone[0])
        torch.testing.assert_close(windows[49 * i : 49 * (i + 1)], alone[1])


@pytest.mark.parametrize("dims", [2, 3])
def test_before_any_step_a_student_that_sees_what_the_teacher_sees_relates_it_in_the_same_way(dims):
    """A random guess is worth several nats, whose gradient threw the student off in its first steps."""
    torch.manual_seed(0)
    description, guess, space = Description(dims, 3, 4), Guess(dims, 3, 4), (16, 16, 16)[:dims]
    logits, coarse = torch.randn(2, 4, *space), torch.randn(2, 3, *space)
    said = description(Output(logits, (coarse,)))
    earlier = Earlier(5, said_by_one(said))
    assert [loss.item() for loss in earlier.losses(guess(said), said, 0.1)] == pytest.approx([0, 0], abs=1e-5)


def said_by_one(vectors):
    """Those of the first of two images."""
    latent, windows = vectors
    return latent[:1], windows[: len(windows) // 2]
