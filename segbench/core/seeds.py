"""Seeds from named axes: the same names give the same seed everywhere, and a new axis never shifts the others."""

from __future__ import annotations

import hashlib

SEED_BITS = 63


def seed_for(*axes: object) -> int:
    """Return a seed in 0 .. 2**63 - 1 that depends only on the axes, for example `seed_for(2023, "train", "liver")`.

    It is the head of the SHA-256 of the axes' texts joined by '/', so it is the same on every machine and in every
    process (unlike `hash`). Without any axis it raises `ValueError`: such a seed would be shared by everything.
    """
    if not axes:
        raise ValueError("seed_for: found no axis; expected at least one name or number; name what the seed is for")
    digest = hashlib.sha256("/".join(map(str, axes)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - SEED_BITS)
