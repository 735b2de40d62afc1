"""Masks that tell the rows of a weight apart, and the constants that stand where they fix it.

Source: Lim et al. 2024, section 3.1 and its appendix, https://arxiv.org/abs/2405.20231. Here a mask is true where an
entry is fixed.
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
from zoo.networks.parameters import Parameter, ParameterLayout
from zoo.seeds import rng_for
from zoo.treatments.base import Treatment

MaskKind = Literal["densest", "bound_zeros", "random_subsets", "filter_random_subsets"]
Mask = Bool[np.ndarray, "rows choices"]


class FixedEntries(Treatment):
    """The arguments of treatments that fix entries of weights, each one value, a list, or a table (see `per_layer`).

    Arguments:
        n_fix: fixed entries of each row (input channels, for `filter_random_subsets`); not used by `densest`.
        kappa: the constants are `kappa * N(0, 1)`.
        mask: `densest` fixes as little as makes rows differ; `bound_zeros` at least `n_fix` entries, in
            lexicographic order; `random_subsets` random entries, over inputs x kernel positions;
            `filter_random_subsets` random input channels, whole kernels at a time.
        wholly_fixed: weights, without `.weight`, of which nothing trains.
        shared: whether places and constants are the zoo's, or drawn anew for each pair.
    """

    n_fix: NonNegativeInt | list[NonNegativeInt] | dict[str, NonNegativeInt] = 0
    kappa: NonNegativeFloat | list[NonNegativeFloat] | dict[str, NonNegativeFloat] = 1.0
    mask: MaskKind | list[MaskKind] | dict[str, MaskKind] = "random_subsets"
    wholly_fixed: list[str] = []
    shared: bool = True

    def draw(self, layout: ParameterLayout, seed: int, *index: int) -> tuple[Tensor, Tensor]:
        """Draw where entries are fixed, bool `(P,)`, and to what, float32 `(P,)`, zero where they are not.

        Raises:
            RecipeError: if an argument does not fit the layout, or two rows of a weight would be alike.
        """
        fixed, constants = torch.zeros(layout.size, dtype=torch.bool), torch.zeros(layout.size)
        n_fix, kappa, kinds = (per_layer(f, getattr(self, f), layout.weights) for f in ("n_fix", "kappa", "mask"))
        if unknown := {f"{name}.weight" for name in self.wholly_fixed} - n_fix.keys():
            raise RecipeError(f"wholly_fixed: there is no weight {min(unknown)}; the weights are {list(n_fix)}")
        for weight in layout.weights:
            name, where = weight.name, layout.slices[weight.name]
            values = kappa[name] * rng_for(seed, f"constants/{name}", *index).standard_normal(weight.size)
            if name.removesuffix(".weight") in self.wholly_fixed:
                mask = np.ones(weight.size, bool)
                if kappa[name] == 0:
                    raise RecipeError(f"wholly_fixed: {name} has kappa 0, so all of its rows are alike")
            else:
                mask = draw_mask(weight, kinds[name], n_fix[name], rng_for(seed, f"mask/{name}", *index)).ravel()
            fixed[where] = torch.from_numpy(mask)
            constants[where] = torch.from_numpy(np.where(mask, values, 0).astype(np.float32))
        return fixed, constants


def per_layer(field: str, setting: Any, weights: Sequence[Parameter]) -> dict[str, Any]:
    """Spread a setting over the weights: one value for all, a list in their order, or a table of name patterns.

    Patterns are shell-style and match a weight's name without `.weight`; the first that matches counts.

    Raises:
        RecipeError: if the list has another length, a weight matches no pattern, or a pattern no weight.
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
        if idle := setting.keys() - set(chain.from_iterable(matches)):
            raise RecipeError(f"{field}: pattern {min(idle)!r} matches no weight; the weights are {names}")
        values = [setting[match[0]] for match in matches]
    else:
        values = [setting] * len(names)
    return {weight.name: value for weight, value in zip(weights, values, strict=True)}


def draw_mask(weight: Parameter, kind: MaskKind, n_fix: int, rng: np.random.Generator) -> Mask:
    """Draw the mask `(rows, fan_in)` of one weight.

    Raises:
        RecipeError: if a row would have nothing left to train, or there are more rows than distinct masks.
    """
    rows, kernel = weight.shape[0], int(np.prod(weight.shape[2:]))
    choices = weight.shape[1] if kind == "filter_random_subsets" else weight.fan_in
    if kind == "densest":
        n_fix = 0
    if n_fix >= choices:
        raise RecipeError(
            f"n_fix: {n_fix} for {weight.name}, whose rows have {choices} entries; "
            "take fewer, or list the weight in wholly_fixed"
        )
    sizes = [n_fix] if kind in ("random_subsets", "filter_random_subsets") else range(n_fix, choices)
    if rows > (distinct := sum(comb(choices, size) for size in sizes)):
        raise RecipeError(f"n_fix: {weight.name} has {rows} rows but only {distinct} distinct masks; change n_fix")
    if kind in ("densest", "bound_zeros"):
        mask = lexicographic_subsets(rows, choices, n_fix)
    else:
        mask = random_subsets(rows, choices, n_fix, rng)
        if kind == "filter_random_subsets":
            mask = mask.repeat(kernel, axis=1)
    check_rows_differ(weight.name, mask)
    return mask


def lexicographic_subsets(rows: int, choices: int, n_fix: int) -> Mask:
    """Fix subsets of `n_fix` entries in lexicographic order, then of `n_fix + 1`, and so on."""
    mask = np.zeros((rows, choices), bool)
    subsets: Iterator[tuple[int, ...]] = chain.from_iterable(
        combinations(range(choices), size) for size in range(n_fix, choices)
    )
    for row, subset in zip(mask, islice(subsets, rows), strict=True):
        row[list(subset)] = True
    return mask


def random_subsets(rows: int, choices: int, n_fix: int, rng: np.random.Generator) -> Mask:
    """Fix `n_fix` random entries of each row, drawing again the rows that are like an earlier one."""
    mask = np.zeros((rows, choices), bool)
    again = np.arange(rows)
    while len(again):
        rank = rng.random((len(again), choices)).argsort(axis=1).argsort(axis=1)
        mask[again] = rank < n_fix
        again = np.setdiff1d(np.arange(rows), np.unique(mask, axis=0, return_index=True)[1])
    return mask


def check_rows_differ(name: str, mask: Mask) -> None:
    """Raise a `RecipeError` that names the layer if two rows of its mask are equal."""
    _, first, inverse = np.unique(mask, axis=0, return_index=True, return_inverse=True)
    if len(first) < len(mask):
        copy = next(row for row in range(len(mask)) if first[inverse[row]] != row)
        raise RecipeError(f"mask: rows {first[inverse[copy]]} and {copy} of {name} are equal; change n_fix or the seed")
