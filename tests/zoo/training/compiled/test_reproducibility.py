"""The same bits on every x86-64 processor: a digest of networks, compared across instruction sets and with a stored one."""

import os
import subprocess
import sys
from hashlib import blake2b

import numpy as np
import pytest
from numba.core.codegen import get_host_cpu_features
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

from zoo.data import load_data
from zoo.recipes.optimizer import Optimizer
from zoo.recipes.recipe import Recipe
from zoo.training.compiled.training import rates_of
from zoo.training.engines import Engine
from zoo.training.generation import train_pairs

AVX2 = "+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+movbe"
# Trained on an AMD EPYC with AVX2. If a change of the engine changes it, count up the engine's number in
# `zoo.training.modes.NAMES`, since networks that were trained before are then no longer the same.
STORED = "64d98186f27a5205d9794a81bc786055"
SCHEDULES = [
    {"schedule": "constant"},
    {"schedule": "triangular", "warmup": 0.3},
    {"schedule": "warmup", "warmup_epochs": 2},
    {"schedule": "exponential_warmup", "warmup_epochs": 3},
]


def digest():
    """The digest of 64 networks of all treatments, of their hyperparameters, starts, rates and metrics, and of data."""
    total = blake2b(digest_size=16)
    recipe = Recipe.load("digits-mlp")
    training = recipe.training.model_copy(
        update={"epochs": recipe.training.epochs.model_copy(update={"integers": (1, 3)})}
    )
    recipe = recipe.model_copy(update={"training": training})
    data = load_data("digits", train_limit=200)
    total.update(data.digest.encode())
    for treatment in recipe.treatments:
        arrays = train_pairs(recipe, treatment, range(8), data, engine=Engine("compiled"))
        for name in sorted(arrays.keys() - {"seconds"}):
            total.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    for settings in SCHEDULES:
        total.update(rates_of(Optimizer(**settings), 0.05, 7, 11).tobytes())
    return total.hexdigest()


def digest_in_a_process(**environment):
    """The digest in a new Python, which compiles for another processor or uses other instructions in NumPy."""
    program = f"from {__name__} import digest; print(digest())"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_networks_are_those_of_every_other_machine():
    assert digest() == STORED


def test_networks_do_not_depend_on_the_instructions_that_numpy_and_torch_use():
    special = " ".join(feature for feature in __cpu_dispatch__ if __cpu_features__[feature])
    assert digest_in_a_process(NPY_DISABLE_CPU_FEATURES=special, ATEN_CPU_CAPABILITY="default") == STORED


@pytest.mark.skipif(
    "+avx512f" not in get_host_cpu_features(), reason="this processor has no AVX-512; the stored digest is compared"
)
def test_networks_compiled_for_avx2_are_those_compiled_for_avx512():
    assert digest_in_a_process(NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES=AVX2) == digest()
