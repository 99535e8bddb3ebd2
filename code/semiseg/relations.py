"""What an image and the windows of its prediction are like, as vectors that can be related to those of others."""

from torch import Tensor, nn

from semiseg.losses import relation_loss
from semiseg.memory import Memory
from semiseg.networks import Output
from semiseg.networks.layers import ADAPTIVE_POOL, CONVOLUTION

Vectors = tuple[Tensor, Tensor]  # of images (batch, D); of windows, maps (batch · windows, C, *CELLS)
CELLS = {2: 8, 3: 4}  # along each axis of a window
PARTS = {2: 4, 3: 2}  # of an axis that make a window, which are shifted by half of their length


def projection(dims: int, inputs: int, hidden: int, outputs: int, bias: bool = True) -> nn.Sequential:
    """Two 1×1 convolutions without anything between them."""
    convolution = CONVOLUTION[dims]
    return nn.Sequential(convolution(inputs, hidden, 1, bias=bias), convolution(hidden, outputs, 1, bias=bias))


class Description(nn.Module):
    """Reads the vectors of images and windows off a network's output."""

    def __init__(self, dims: int, width: int, classes: int) -> None:
        super().__init__()
        self.latent = nn.Sequential(nn.Linear(width, width), nn.Linear(width, 2 * width))
        self.window = projection(dims, classes, 2 * classes, classes)

    def forward(self, output: Output) -> Vectors:
        windows = cut(output.logits).flatten(0, 1)
        dims = windows.ndim - 2
        vectors: Tensor = self.latent(output.encoder[-1].flatten(2).mean(2))
        return vectors, self.window(ADAPTIVE_POOL[dims](CELLS[dims])(windows))


class Guess(nn.Module):
    """Guesses the teacher's vectors from the student's; at first that they are the same, as the networks are.

    A random guess disagrees with the teacher so much that the first steps throw the student off (methods/README.md).
    """

    def __init__(self, dims: int, width: int, classes: int) -> None:
        super().__init__()
        self.latent = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.Linear(2 * width, 2 * width))
        self.window = projection(dims, classes, classes, classes)
        for layer in (*self.latent, *self.window):
            (nn.init.eye_ if layer.weight.ndim == 2 else nn.init.dirac_)(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, vectors: Vectors) -> Vectors:
        return self.latent(vectors[0]), self.window(vectors[1])


class Earlier(nn.Module):
    """Vectors of earlier images, to which later ones are related; at first they are noise."""

    def __init__(self, capacity: int, example: Vectors) -> None:
        super().__init__()
        latent, windows = example  # of one image
        self.latent = Memory(capacity, latent.shape[1], random=True)
        self.windows = Memory(capacity, len(windows), windows[0].numel(), random=True)

    def losses(self, student: Vectors, teacher: Vectors, temperature: float) -> Vectors:
        """How differently both relate images, and windows of the same place, to the earlier ones."""
        (latent, windows), (key, window_key) = student, teacher
        shape = (len(latent), -1, window_key[0].numel())
        return (
            relation_loss(latent, key, self.latent.rows, temperature),
            relation_loss(windows.reshape(shape), window_key.reshape(shape), self.windows.rows, temperature),
        )

    def push(self, teacher: Vectors) -> None:
        """Remember what the teacher says of the images of this step, as many as there is room for."""
        latent, windows = teacher
        self.latent.push(latent)
        self.windows.push(windows.reshape(len(latent), -1, windows[0].numel()))


def cut(logits: Tensor) -> Tensor:
    """Overlapping windows of (batch, C, *space): (batch, windows, C, *side); in 2D 7 × 7, in 3D 3 × 3 × 3."""
    dims = logits.ndim - 2
    for axis, length in enumerate(logits.shape[2:]):
        side = max(1, length // PARTS[dims])
        logits = logits.unfold(2 + axis, side, max(1, side // 2))
    return logits.movedim(1, 1 + dims).flatten(1, dims)
