"""Randomness as a pure function of names and numbers, so that any step can be repeated on its own."""

import hashlib


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from any sequence of names and numbers; distinct sequences give independent seeds."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
