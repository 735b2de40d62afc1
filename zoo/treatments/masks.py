"""Draws which entries of weights are fixed, so that no two rows of a weight are alike, and their constant values.

Arrays called `fixed` are true where an entry is fixed. They are the complement of a mask, which is true where entries
train.

Source: Lim et al. 2024, section 3.1 and its appendix, https://arxiv.org/abs/2405.20231.
"""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import chain, combinations, islice
from math import comb
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool
from pydantic import NonNegativeFloat, NonNegativeInt
from torch import Tensor

from zoo.errors import RecipeError
from zoo.networks.parameter import Parameter
from zoo.networks.parameters import ParameterLayout
from zoo.seeds import rng_for
from zoo.treatments.base import Treatment

MaskKind = Literal["densest", "bound_zeros", "random_subsets", "filter_random_subsets"]
Fixed = Bool[np.ndarray, "rows choices"]


class FixedEntries(Treatment):
    """Base class of treatments that fix entries of weights.

    The arguments `n_fix`, `kappa` and `mask` are one value for all weights, a list with one value for each weight, or a
    table of patterns, see `per_layer`.

    Arguments:
        n_fix: Number of fixed entries in each row; for `filter_random_subsets`, of fixed input channels; not used by
            `densest`.
        kappa: Standard deviation of the constants, which are `kappa * N(0, 1)`.
        mask: How fixed entries are chosen. `densest`: as few entries as make all rows differ. `bound_zeros`: at least
            `n_fix` entries, in lexicographic order. `random_subsets`: random entries among inputs and kernel positions.
            `filter_random_subsets`: random input channels, with all of their kernel positions.
        wholly_fixed: Names of weights, without `.weight`, in which every entry is fixed.
        shared: Whether all networks of a zoo have the same fixed entries and constants; otherwise these are drawn for
            each pair.
    """

    n_fix: NonNegativeInt | list[NonNegativeInt] | dict[str, NonNegativeInt] = 0
    kappa: NonNegativeFloat | list[NonNegativeFloat] | dict[str, NonNegativeFloat] = 1.0
    mask: MaskKind | list[MaskKind] | dict[str, MaskKind] = "random_subsets"
    wholly_fixed: list[str] = []
    shared: bool = True

    def draw(self, layout: ParameterLayout, seed: int, *index: int) -> tuple[Tensor, Tensor]:
        """Draw which entries are fixed, and their constants.

        Arguments:
            layout: Layout of the networks.
            seed: Seed of the recipe.
            index: Number of the pair, if the entries are drawn for each pair.

        Returns:
            Whether each entry is fixed, bool `(P,)`, and the constants, float32 `(P,)`, zero where entries train.

        Raises:
            RecipeError: If an argument does not fit the layout, or two rows of a weight would be alike.
        """
        fixed, constants = torch.zeros(layout.size, dtype=torch.bool), torch.zeros(layout.size)
        n_fix, kappa, kinds = (per_layer(f, getattr(self, f), layout.weights) for f in ("n_fix", "kappa", "mask"))
        if unknown := {f"{name}.weight" for name in self.wholly_fixed} - n_fix.keys():
            raise RecipeError(f"wholly_fixed: there is no weight {min(unknown)}; the weights are {list(n_fix)}")
        for weight in layout.weights:
            name, where = weight.name, layout.slices[weight.name]
            values = kappa[name] * rng_for(seed, f"constants/{name}", *index).standard_normal(weight.size)
            if name.removesuffix(".weight") in self.wholly_fixed:
                chosen = np.ones(weight.size, bool)
                if kappa[name] == 0:
                    raise RecipeError(f"wholly_fixed: {name} has kappa 0, so all of its rows are alike; change kappa")
            else:
                chosen = draw_fixed(weight, kinds[name], n_fix[name], rng_for(seed, f"mask/{name}", *index)).ravel()
            fixed[where] = torch.from_numpy(chosen)
            constants[where] = torch.from_numpy(np.where(chosen, values, 0).astype(np.float32))
        return fixed, constants


def per_layer(field: str, setting: Any, weights: Sequence[Parameter]) -> dict[str, Any]:
    """Return the value of a setting for each weight, by the weight's name.

    Arguments:
        field: Name of the setting, for error messages.
        setting: One value for all weights, a list with one value for each weight in their order, or a table of
            patterns. Patterns are shell-style and match the name of a weight without `.weight`; the first match counts.
        weights: Weights of the layout.

    Raises:
        RecipeError: If the list has another length, a weight matches no pattern, or a pattern matches no weight.
    """
    names = [weight.name.removesuffix(".weight") for weight in weights]
    if isinstance(setting, list):
        if len(setting) != len(names):
            raise RecipeError(f"{field}: {len(setting)} values for {len(names)} weights; give one for each of {names}")
        values = setting
    elif isinstance(setting, dict):
        matches = [[pattern for pattern in setting if fnmatchcase(name, pattern)] for name in names]
        if unmatched := [name for name, match in zip(names, matches, strict=True) if not match]:
            raise RecipeError(f"{field}: no pattern matches {unmatched[0]}; add one, or '*' at the end")
        if unused := setting.keys() - set(chain.from_iterable(matches)):
            raise RecipeError(f"{field}: pattern {min(unused)!r} matches no weight; the weights are {names}")
        values = [setting[match[0]] for match in matches]
    else:
        values = [setting] * len(names)
    return {weight.name: value for weight, value in zip(weights, values, strict=True)}


def draw_fixed(weight: Parameter, kind: MaskKind, n_fix: int, rng: np.random.Generator) -> Fixed:
    """Draw the fixed entries of one weight, `(rows, fan_in)`.

    Arguments:
        weight: Weight to draw for.
        kind: How fixed entries are chosen, see `FixedEntries`.
        n_fix: Number of fixed entries, or input channels, in each row.
        rng: Random generator.

    Raises:
        RecipeError: If a row would have no entry that trains, or there are more rows than distinct choices.
    """
    rows, kernel = weight.shape[0], int(np.prod(weight.shape[2:]))
    choices = weight.shape[1] if kind == "filter_random_subsets" else weight.fan_in
    if kind == "densest":
        n_fix = 0
    if n_fix >= choices:
        raise RecipeError(
            f"n_fix: {n_fix} for {weight.name}, whose rows have {choices} entries; "
            "choose fewer, or list the weight in wholly_fixed"
        )
    sizes = [n_fix] if kind in ("random_subsets", "filter_random_subsets") else range(n_fix, choices)
    if rows > (distinct := sum(comb(choices, size) for size in sizes)):
        raise RecipeError(f"n_fix: {weight.name} has {rows} rows but only {distinct} distinct masks; change n_fix")
    if kind in ("densest", "bound_zeros"):
        fixed = lexicographic_subsets(rows, choices, n_fix)
    else:
        fixed = random_subsets(rows, choices, n_fix, rng)
        if kind == "filter_random_subsets":
            fixed = fixed.repeat(kernel, axis=1)
    check_rows_differ(weight.name, fixed)
    return fixed


def lexicographic_subsets(rows: int, choices: int, n_fix: int) -> Fixed:
    """Fix subsets of `n_fix` entries in lexicographic order, then subsets of `n_fix + 1` entries, and so on."""
    fixed = np.zeros((rows, choices), bool)
    subsets: Iterator[tuple[int, ...]] = chain.from_iterable(
        combinations(range(choices), size) for size in range(n_fix, choices)
    )
    for row, subset in zip(fixed, islice(subsets, rows), strict=True):
        row[list(subset)] = True
    return fixed


def random_subsets(rows: int, choices: int, n_fix: int, rng: np.random.Generator) -> Fixed:
    """Fix `n_fix` random entries in each row; a row that equals an earlier one is drawn again."""
    fixed = np.zeros((rows, choices), bool)
    again = np.arange(rows)
    while len(again):
        rank = rng.random((len(again), choices)).argsort(axis=1).argsort(axis=1)
        fixed[again] = rank < n_fix
        again = np.setdiff1d(np.arange(rows), np.unique(fixed, axis=0, return_index=True)[1])
    return fixed


def check_rows_differ(name: str, fixed: Fixed) -> None:
    """Raise a `RecipeError` that names the weight if two of its rows have the same fixed entries."""
    _, first, inverse = np.unique(fixed, axis=0, return_index=True, return_inverse=True)
    if len(first) < len(fixed):
        copy = next(row for row in range(len(fixed)) if first[inverse[row]] != row)
        raise RecipeError(f"mask: rows {first[inverse[copy]]} and {copy} of {name} are equal; change n_fix or the seed")
