"""Random generators, all derived from one seed.

Every draw has its own generator, which the recipe's seed, a purpose and an index determine. So no result depends on the
order of calls, the number of workers or the size of a stack. The generator is NumPy's PCG64, because the normal
variates of `torch.Generator` differ in the last bit between processors.
"""

from hashlib import blake2b

import numpy as np


def seed_for(seed: int, purpose: str, *index: int) -> int:
    """Return the 64-bit blake2b digest of (seed, purpose, index)."""
    key = "/".join([str(seed), purpose, *map(str, index)])
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little")


def rng_for(seed: int, purpose: str, *index: int) -> np.random.Generator:
    """Return a generator seeded with `seed_for(seed, purpose, *index)`."""
    return np.random.Generator(np.random.PCG64(seed_for(seed, purpose, *index)))
