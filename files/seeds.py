"""Derive seeds from names."""

from __future__ import annotations

import hashlib


def derive_seed(*names: int | str) -> int:
    """Return a 64-bit seed for a sequence of names: equal on every machine, unrelated for different names.

    names: purpose of the seed, such as ("suite", key, bin). 1 and "1" differ.
    """
    digest = hashlib.blake2b("\x1f".join(f"{type(name).__name__}:{name}" for name in names).encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "little")
