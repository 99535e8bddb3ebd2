"""Files of weights: whatever shares memory is saved, and loaded as it was."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from semiseg.contract import MethodContract
from semiseg.losses import supervised_loss
from semiseg.method import Method, MovingAverage, Paper
from semiseg.training.files import save_tensors


class Tied(nn.Module):
    """A module under two names, a weight under two names, and a view of a buffer."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        self.first = self.body[0]
        self.other = nn.Linear(3, 3)
        self.other.weight = self.first.weight
        self.register_buffer("table", torch.arange(6.0).view(2, 3))
        self.register_buffer("row", self.table[1])


def test_weights_that_share_memory_are_saved_and_loaded(tmp_path):
    tied = Tied()
    save_tensors(tmp_path / "weights.safetensors", tied.state_dict(), {})
    loaded = load_file(tmp_path / "weights.safetensors")
    other = Tied()
    other.load_state_dict(loaded)
    assert loaded.keys() == tied.state_dict().keys()
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in tied.state_dict().items())
    assert other.first is other.body[0], "what was shared is still shared"


def test_a_shared_weight_is_averaged_once():
    tied = Tied()
    average = MovingAverage(tied, 0.75)
    before = tied.first.weight.detach().clone()
    with torch.no_grad():
        tied.first.weight += 1
    average.update(100)
    assert torch.allclose(average.network.first.weight, before + 0.25)


class TwoNames(Method):
    """A method that keeps a part of its network under a name of its own."""

    title = "Two names"
    paper = Paper("Two names", "Nobody", "Nowhere")

    def build(self):
        self.model = self.network()
        self.encoder = self.model.encoder
        self.teacher = self.moving_average(self.model, 0.9)

    def losses(self, batch, progress):
        labeled, unlabeled = batch.split(self.model(batch.images()).logits)
        return {"supervised": supervised_loss(labeled, batch.labels), "certainty": 0.01 * unlabeled.square().mean()}

    def predictors(self):
        return {"network": self.model}


@pytest.mark.parametrize("dims", [2, 3])
def test_a_part_under_two_names_can_be_resumed_and_saved(tmp_path, dims):
    contract = MethodContract("two_names", TwoNames, dims, tmp_path)
    contract.check_an_interrupted_run_resumes_bit_for_bit()
    contract.check_saved_weights_predict_the_same()
