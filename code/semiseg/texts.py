"""What a data set says of its images in words: the names of its fields, and the sentences of a text."""

import re

TEXT = "text"
STUDY = "study"  # cases of one study share what their texts say
REGIONS = "regions"  # (sentences, 4): a box y, x, y, x between 0 and 1, negative where a sentence tells no place


def sentences(text: str) -> list[str]:
    """The sentences of a text that have at least three words; the whole text if none has."""
    parts = [part.strip() for part in re.split(r"(?<=[.!?;])\s+|\n+", text)]
    return [part for part in parts if len(part.split()) >= 3] or [text.strip()]
