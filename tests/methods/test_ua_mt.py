"""UA-MT: where the teacher is trusted, and how much."""

import math

import pytest
import torch
from torch import nn

from semiseg.losses import mse_consistency
from semiseg.method import Progress
from semiseg.methods.ua_mt import UncertaintyAwareMeanTeacher
from semiseg.networks import Output


def fixed(logits):
    """A teacher that always says the same."""

    class Fixed(nn.Module):
        def forward(self, images):
            return Output(torch.cat([logits] * (len(images) // len(logits))))

    return Fixed()


@pytest.fixture
def method(task):
    return UncertaintyAwareMeanTeacher(task)


def test_a_certain_teacher_gives_plain_mean_teacher(method, task, batch):
    logits = 20 * nn.functional.one_hot(torch.randint(3, (2, *task.size)), 3).movedim(-1, 1).float()
    method.teacher = fixed(logits)
    student = torch.randn_like(logits)
    loss = method.consistency(student, batch.unlabeled(), Progress(0, 100))
    assert loss.item() == pytest.approx(mse_consistency(student, logits.softmax(1)).item(), rel=1e-5)
    assert method.noted["certain_fraction"] == 1


def test_an_undecided_teacher_teaches_nothing(method, task, batch):
    method.teacher = fixed(torch.zeros(2, 3, *task.size))
    student = torch.randn(2, 3, *task.size)
    assert method.consistency(student, batch.unlabeled(), Progress(0, 100)) == 0


def test_threshold_is_relative_to_the_number_of_classes_and_rises(method, task, batch):
    p = torch.tensor([0.6, 0.3, 0.1]).view(1, 3, *[1] * task.dims).expand(2, 3, *task.size)
    method.teacher = fixed(p.log())
    student = torch.zeros_like(p)
    entropy = -sum(x * math.log(x) for x in (0.6, 0.3, 0.1))  # 0.898 nats
    assert 0.7517 * math.log(3) < entropy < math.log(3)  # between the first and the last threshold
    assert math.log(2) < entropy  # a threshold that kept ln 2 would never let this pixel in
    assert method.consistency(student, batch.unlabeled(), Progress(0, 100)) == 0
    assert method.consistency(student, batch.unlabeled(), Progress(100, 100)) > 0


def test_the_uncertainty_takes_as_many_passes_as_configured(task, batch):
    method = UncertaintyAwareMeanTeacher(task, UncertaintyAwareMeanTeacher.Config(passes=3))
    seen = []
    method.teacher.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    method.losses(batch, Progress(0, 10))
    target, uncertainty = seen
    assert len(target) == 2
    passes = uncertainty.unflatten(0, (3, 2))
    assert not torch.equal(passes[0], passes[1])  # every pass has noise of its own
    assert (passes - batch.unlabeled()).abs().max() <= 0.2 + 1e-6


def test_a_teacher_that_changes_its_mind_from_pass_to_pass_is_not_trusted(task, batch):
    """Each pass is sure, and of another class: the mean of all is not, whatever the target's own pass says."""
    method = UncertaintyAwareMeanTeacher(task, UncertaintyAwareMeanTeacher.Config(passes=3))
    sure = 20 * nn.functional.one_hot(torch.randint(3, (2, *task.size)), 3).movedim(-1, 1).float()
    turned = torch.cat([sure.roll(k, 1) for k in range(3)])
    method.target = lambda images: (sure if len(images) == 2 else turned).softmax(1)
    method.consistency(torch.zeros_like(sure), batch.unlabeled(), Progress(0, 100))
    assert method.noted["certain_fraction"] == 0
