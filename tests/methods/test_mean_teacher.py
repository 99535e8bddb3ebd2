"""Mean Teacher: what the teacher is, and that nothing flows back into it."""

import pytest
import torch

from semiseg.contract import MethodContract
from semiseg.losses import mse_consistency
from semiseg.method import MovingAverage, Progress
from semiseg.methods.mean_teacher import MeanTeacher


def test_teacher_equals_the_student_after_the_first_step(task, batch):
    method = MeanTeacher(task)
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter.add_(0.1)
    method.student(batch.images())  # moves the running statistics
    method.teacher.update(0)
    for own, other in zip(
        method.teacher.network.state_dict().values(), method.student.state_dict().values(), strict=True
    ):
        assert torch.equal(own, other)


def test_teacher_follows_with_the_early_average_then_the_decay():
    network = torch.nn.Linear(1, 1)
    average = MovingAverage(network, decay=0.6)
    value = network.weight.item()
    for step in range(5):
        with torch.no_grad():
            network.weight.add_(1.0)
        alpha = min(1 - 1 / (step + 1), 0.6)
        value = alpha * value + (1 - alpha) * network.weight.item()
        average.update(step)
        assert average.network.weight.item() == pytest.approx(value, rel=1e-6)


def test_running_statistics_of_the_teacher_come_from_the_student_alone():
    network = torch.nn.BatchNorm2d(2)
    average = MovingAverage(network, decay=0.5).train()
    before = average.network.running_mean.clone()
    average(torch.rand(3, 2, 4, 4))
    assert torch.equal(before, average.network.running_mean)
    network(torch.rand(3, 2, 4, 4))
    average.update(1)
    torch.testing.assert_close(average.network.running_mean, 0.5 * before + 0.5 * network.running_mean)


def test_an_average_that_moves_with_its_network_goes_on_following_it():
    network = torch.nn.BatchNorm2d(2)
    average = MovingAverage(network, decay=0.0)
    average.update(0)
    torch.nn.ModuleList([network, average]).double()  # buffers become other tensors
    network(torch.rand(3, 2, 4, 4, dtype=torch.float64))
    average.update(1)
    assert torch.equal(average.network.running_mean, network.running_mean)
    assert average.network.num_batches_tracked == 1


@pytest.mark.parametrize("dims", [2, 3])
def test_a_trained_teacher_predicts_with_the_statistics_of_its_own_weights(tmp_path, dims):
    spec = {"network": {2: "unet_small", 3: "vnet_small"}[dims]}
    contract = MethodContract("mean_teacher", MeanTeacher, dims, tmp_path)
    trainer = contract.trainer("run", contract.spec().model_copy(update=spec))
    trainer.fit()
    norm = next(m for m in trainer.method.teacher.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm))
    seen = []
    handle = norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].transpose(0, 1).flatten(1)))
    with torch.no_grad():
        for step in range(trainer.settings.steps):
            trainer.method.teacher(trainer.batch(step).images())
    handle.remove()
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean(1) for x in seen]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([x.var(1) for x in seen]).mean(0))
    assert norm.momentum == 0


def test_no_gradient_reaches_the_teacher(task, batch):
    method = MeanTeacher(task)
    sum(method.losses(batch, Progress(100, 100)).values()).backward()
    assert all(p.grad is None and not p.requires_grad for p in method.teacher.parameters())
    target = method.target(batch.unlabeled())
    assert not target.requires_grad


def test_weight_is_zero_at_first_then_follows_the_ramp(task, batch):
    method = MeanTeacher(task, MeanTeacher.Config(consistency=0.1))

    def weighted(step):
        torch.manual_seed(0)
        return method.losses(batch, Progress(step, 300))["consistency"].item()

    assert weighted(9) == 0
    assert weighted(10) > 0
    assert weighted(150) / weighted(300) == pytest.approx(torch.tensor(-5 * 0.25).exp().item(), rel=1e-4)


def test_without_consistency_the_teacher_cannot_influence_the_student(tmp_path):
    class Off(MeanTeacher):
        class Config(MeanTeacher.Config):
            consistency: float = 0.0

    class OffAndSlow(MeanTeacher):
        class Config(MeanTeacher.Config):
            consistency: float = 0.0
            ema_decay: float = 0.5

    students = []
    for method in (Off, OffAndSlow):
        folder = tmp_path / method.__name__
        folder.mkdir()
        trained = MethodContract("mean_teacher", method, 2, folder).trained.method
        students.append(trained.student.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(students[0].values(), students[1].values(), strict=True))


def test_noise_is_clipped_at_two_standard_deviations(task):
    method = MeanTeacher(task, MeanTeacher.Config(noise=0.1))
    seen = []
    method.teacher.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images = torch.full((4, task.channels, *task.size), 0.5)
    method.target(images)
    noise = seen[0] - images
    assert noise.abs().max().item() == pytest.approx(0.2, abs=1e-6)
    assert 0.08 < noise.std().item() < 0.1


def test_the_student_agrees_with_the_teacher_on_unlabelled_images(task, batch):
    method = MeanTeacher(task, MeanTeacher.Config(noise=0)).eval()
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        student, teacher = method.student(batch.unlabeled()).logits, method.teacher(batch.unlabeled()).logits.softmax(1)
    loss = method.losses(batch, Progress(100, 100))["consistency"]
    assert loss.item() == pytest.approx(0.1 * mse_consistency(student, teacher).item(), rel=1e-4)
