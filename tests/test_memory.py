"""Memories: the latest rows and no others, also after a resume; deformations: smooth, and none where there is none."""

import numpy as np
import pytest
import torch

from semiseg.deformation import _identity, deform, diffeomorphism, similarity_and_spline
from semiseg.memory import Memory, pick


def test_the_oldest_rows_make_room_for_new_ones():
    memory = Memory(5, 1)
    for start in (0, 3, 6):
        memory.push(torch.arange(start, start + 3.0)[:, None])
    assert sorted(memory.rows[:, 0].tolist()) == [4, 5, 6, 7, 8]
    assert int(memory.count) == 5


@pytest.mark.parametrize("valid", [None, torch.tensor(True), torch.tensor(False)])
def test_the_first_rows_are_kept_of_more_than_there_is_room_for(valid):
    """Of two rows for one place, which one stays is not said: on a GPU either did, without a word."""
    memory = Memory(3, 1)
    memory.push(torch.tensor([[7.0], [8.0]]))
    memory.push(torch.arange(5.0)[:, None], valid)
    if valid is not None and not valid:
        assert (memory.rows[:, 0].tolist(), int(memory.position), int(memory.count)) == ([7, 8, 0], 2, 2)
    else:
        assert (memory.rows[:, 0].tolist(), int(memory.position), int(memory.count)) == ([1, 2, 0], 2, 3)


def test_nothing_is_remembered_of_what_is_not_there():
    memory = Memory(5, 1)
    memory.push(torch.ones(2, 1), torch.tensor(False))
    assert (int(memory.count), int(memory.position)) == (0, 0)
    memory.push(torch.ones(2, 1), torch.tensor(True))
    assert int(memory.count) == 2
    assert set(memory.draw(50).tolist()) == {0, 1}


def test_a_resumed_memory_goes_on_where_it_was():
    memory, other = Memory(4, 2), Memory(4, 2)
    memory.push(torch.rand(3, 2))
    other.load_state_dict(memory.state_dict())
    for one in (memory, other):
        one.push(torch.ones(2, 2))
    assert torch.equal(memory.rows, other.rows)
    assert int(other.position) == 1


def test_only_marked_positions_are_picked_and_all_of_them():
    mask = torch.tensor([False, True, False, True, True, False])
    assert set(pick(mask, 200).tolist()) == {1, 3, 4}
    assert pick(torch.zeros(3, dtype=torch.bool), 5).max() < 3


def test_the_identity_deforms_nothing():
    images = torch.rand(2, 1, 12, 20)
    grid = _identity(12, 20, images.device).expand(2, -1, -1, -1)
    torch.testing.assert_close(deform(images, grid), images)
    volume = torch.rand(2, 1, 3, 12, 20)
    torch.testing.assert_close(deform(volume, grid), volume)


@pytest.mark.parametrize("size", [48, 256])
def test_smooth_maps_move_little_and_fold_nowhere(size):
    torch.manual_seed(0)
    grid = diffeomorphism(torch.zeros(8, 1, size, size))
    moved = (grid - _identity(size, size, grid.device)).norm(dim=3)
    assert 0.002 < moved.mean() < 0.03  # 1.35 pixels of 256 were measured on the published one: 0.0105
    inner = grid[:, 4:-4, 4:-4]
    assert (inner[:, :, 1:, 0] > inner[:, :, :-1, 0]).all()
    assert (inner[:, 1:, :, 1] > inner[:, :-1, :, 1]).all()


def test_smooth_maps_darken_no_border():
    torch.manual_seed(0)
    bright = torch.ones(4, 1, 24, 40)
    torch.testing.assert_close(deform(bright, diffeomorphism(bright, strength=0.2)), bright)


def test_splines_pass_through_their_control_points():
    """Without jitter the map is a similarity: distances all grow by one factor."""
    torch.manual_seed(0)
    grid = similarity_and_spline(torch.zeros(4, 1, 16, 16), jitter=0.0)
    down, across = grid[:, 1:] - grid[:, :-1], grid[:, :, 1:] - grid[:, :, :-1]
    steps = torch.cat([step.norm(dim=3).flatten(1) for step in (down, across)], 1)
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps), atol=1e-5, rtol=1e-4)
    factor = steps[:, 0] / (2 / 16)
    assert ((factor > 1 / 1.2 - 1e-4) & (factor < 1 / 0.8 + 1e-4)).all()


def spline(offsets, pixels):
    """How far 25 control points' offsets (25, 2) move pixels (n, 2), by solving for a thin-plate spline."""
    control = np.array([(x, y) for x in np.linspace(-1, 1, 5) for y in np.linspace(-1, 1, 5)])

    def terms(point):
        squares = [((point - c) ** 2).sum() for c in control]
        return [0.5 * s * np.log(s) if s > 1e-12 else 0.0 for s in squares] + [1.0, *point]

    rows = [terms(c) for c in control]
    bent_only = [[1.0] * 25, [*control[:, 0]], [*control[:, 1]]]  # what bends has no affine part
    system = np.array(rows + [row + [0.0] * 3 for row in bent_only])
    weights = np.linalg.solve(system, np.concatenate([offsets, np.zeros((3, 2))]))
    return np.array([terms(p) for p in pixels]) @ weights


def test_control_points_move_by_their_offsets_and_pixels_between_them_smoothly():
    """The same draws with and without jitter differ by the spline, which a similarity then turns and scales."""
    torch.manual_seed(1)
    offsets = 0.1 * (2 * torch.rand(3, 25, 2) - 1)
    torch.manual_seed(1)
    still = similarity_and_spline(torch.zeros(3, 1, 6, 10), jitter=0.0).double().numpy()
    torch.manual_seed(1)
    bent = similarity_and_spline(torch.zeros(3, 1, 6, 10), jitter=0.1).double().numpy()
    pixels = _identity(6, 10, torch.device("cpu")).double().numpy()
    for image in range(3):
        moved = spline(offsets[image].double().numpy(), pixels.reshape(-1, 2)).reshape(6, 10, 2)
        np.testing.assert_allclose(moved[1, 2], offsets[image, 5 * 1 + 1], atol=1e-6)  # x = y = −½ is both
        np.testing.assert_allclose(moved[4, 2], offsets[image, 5 * 1 + 3], atol=1e-6)  # x = −½, y = ½
        right = (still[image, 0, 1] - still[image, 0, 0]) / (2 / 10)  # where a step of 1 to the right leads
        down = (still[image, 1, 0] - still[image, 0, 0]) / (2 / 6)
        expected = still[image] + moved[..., :1] * right + moved[..., 1:] * down
        np.testing.assert_allclose(bent[image], expected, atol=1e-5)
