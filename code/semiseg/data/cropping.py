"""What of an image is seen: all of it, its centre, or one window at a time."""

from collections.abc import Sequence
from types import EllipsisType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

Region = tuple[EllipsisType | slice, ...]  # of an array's last axes


class Crop(BaseModel):
    """A window in pixels of the original image; it needs no label, so it is the same for new images."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    window: tuple[int, ...]  # (height, width); for volumes trained in 3D also (depth, height, width)
    at: Literal["centre", "anywhere"] = "centre"

    @model_validator(mode="before")
    @classmethod
    def _is_a_mapping(cls, value: Any) -> Any:
        if not isinstance(value, dict | Crop):
            raise ValueError(f"write {{window: [height, width], at: centre or anywhere}}, not {value!r}")
        return value

    def fit(self, size: Sequence[int]) -> None:
        """Refuse a window that does not go with the size of what is trained."""
        window, size = list(self.window), list(size)
        if len(window) not in {2, len(size)}:
            raise ValueError(f"crop.window {window} should be [height, width], or have the axes of size {size}")
        if any(have < want for have, want in zip(window, size[-len(window) :], strict=True)):
            raise ValueError(f"crop.window {window} should be at least as large as size {size} along every axis")
        if self.at == "anywhere" and len(size) == 3:
            raise ValueError("in 3D, patches of size are cut anywhere already; use crop.at centre, or no crop")

    def scaled(self, shape: Sequence[int], size: Sequence[int]) -> tuple[int, ...]:
        """The shape of a slice once it is resized so that a window gets the given size."""
        axes = zip(shape, self.window, size, strict=True)
        return tuple(max(1, round(have * new / old)) for have, old, new in axes)


def region(crop: Crop | None, shape: Sequence[int]) -> Region:
    """What of an image (..., *space) of this shape is seen at all; nothing else is predicted."""
    return middle(shape, crop.window) if crop and crop.at == "centre" else (...,)


def middle(shape: Sequence[int], window: Sequence[int]) -> Region:
    """The central window of an array's last axes; what is shorter is taken whole."""
    starts = [(max(0, have - want) // 2, want) for have, want in zip(shape[-len(window) :], window, strict=True)]
    return (..., *(slice(start, start + want) for start, want in starts))
