"""Recipes keep their JSON and their digest when fields are added, and when a zoo stores them."""

import json
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.networks.architectures import ARCHITECTURES, Architecture
from zoo.networks.architectures.mlp import MLP
from zoo.recipes.recipe import Recipe, built_in_recipes
from zoo.stored import Stored, digest_of

# Zoos are known by these: a digest that changes here makes strangers of all zoos of the recipe.
DIGESTS = {
    "cifar10-resnet20-replicas": "814f19bcd3af1285e3f67cd6b5a8fea8",
    "cifar10-resnet8": "6a4566417442056867d8b50f31cef481",
    "digits-mlp": "378c26e0f3d88f273da06faaf2bc8e75",
    "digits-mlp-replicas": "dd33ac51ce9baf1cfa26cb5975918009",
    "digits-mlp12-replicas": "91ac433eb12dbc3f6757e83012dce49a",
    "digits-mlp16-replicas": "8869b0bb5c18eb88055966886bd4231f",
    "digits-mlp4-replicas": "84c401b7f2fc257cb75288e47fd16999",
    "digits-mlp8-replicas": "f6757feb0ef18143a8874c032e2a014a",
    "mnist-cnn": "c22aaca089f5313fb45824597bb190bf",
    "mnist-mlp": "7dfe192281bfbfff1af411e2e0963371",
    "mnist-mlp-replicas": "76f2f697d7dc9f16317fe1ed0f15be91",
    "digits-vit": "0100db5ad28cf0e97089d29829cd3b18",
    "digits-vit-replicas": "5d4b8a965a621dd3026a92d26c98e433",
    "mnist-mlp16-replicas": "70ef62af5251933e0e71d02296f384ba",
    "mnist-mlp4-replicas": "d54811aa9a4d0fefd243de399ab59d0e",
    "mnist-mlp8-replicas": "c3b40d00f14b1a269027a5a86d476659",
    "sbm-gnn-replicas": "9b69401c39f7ef24353080638f7e4e04",
}


class Grown(Stored):
    """A model with two fields, of which `late` was added later."""

    kept: int = 1
    late: float | None = None
    later: ClassVar[frozenset[str]] = frozenset({"late"})


class Around(Stored):
    """A model that contains one with a later field."""

    inner: Grown = Grown()


class Longer(MLP):
    """An MLP whose constructor has a later argument."""

    later = frozenset({"dilation"})

    def __init__(self, widths: list[int], dilation: int = 1) -> None:
        super().__init__(widths)


class Shorter(MLP):
    """The same MLP without the later argument."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__(widths)


def distributions(low, high):
    bounds = st.tuples(st.floats(low, high), st.floats(low, high)).map(sorted)
    return st.floats(low, high) | st.sampled_from(["uniform", "log_uniform"]).flatmap(
        lambda kind: bounds.map(lambda pair: {kind: pair})
    )


TREATMENTS = st.dictionaries(
    st.sampled_from(["a", "b", "c_1"]),
    st.sampled_from(
        [
            {"kind": "standard"},
            {"kind": "narrow", "width": 0.75},
            {"kind": "w_asymmetric", "n_fix": [1, 2]},
            {"kind": "w_asymmetric", "n_fix": {"hidden.*": 2, "*": 1}, "kappa": 0.1, "shared": False},
            {"kind": "w_initialised", "mask": "densest", "shared": False},
            {"kind": "sigma_asymmetric", "variance": "inverse_width"},
            {"kind": "sigma_asymmetric", "shared": False},
            {"kind": "syre", "std": 0.3},
        ]
    ),
    min_size=1,
)
RECIPES = st.fixed_dictionaries(
    {
        "name": st.just("drawn"),
        "pairs": st.integers(1, 10**6),
        "data": st.just({"name": "digits"}) | st.just({"name": "digits", "train_limit": 100}),
        "architecture": st.lists(st.integers(1, 9), min_size=2, max_size=4).map(lambda w: {"name": "mlp", "widths": w}),
        "training": st.fixed_dictionaries(
            {"learning_rate": distributions(1e-6, 1.0), "epochs": st.just({"integers": [1, 4]}) | st.integers(1, 9)},
            optional={
                "weight_decay": distributions(1e-9, 0.1),
                "optimizer": st.sampled_from(["sgd", "adamw"]),
                "betas": st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)),
                "augmentation": st.just({"flip": True}),
            },
        ),
        "treatments": TREATMENTS,
    },
    optional={"seed": st.integers(0, 2**64), "description": st.text(max_size=9)},
)


def in_json(values):
    """The recipe read from its JSON."""
    return json.loads(json.dumps(values))


def test_digests_of_built_in_recipes_never_change():
    assert {name: Recipe.load(name).digest for name in built_in_recipes()} == DIGESTS


def test_a_later_field_at_its_default_is_neither_written_nor_hashed():
    for one in (Grown(), Grown(late=None)):
        assert one.model_dump() == one.model_dump(mode="json") == json.loads(one.model_dump_json()) == {"kept": 1}
    assert Around().model_dump() == {"inner": {"kept": 1}}
    assert digest_of(Grown().model_dump()) == digest_of({"kept": 1})


def test_a_later_field_with_another_value_is_written_and_hashed():
    assert Grown(late=0.0).model_dump() == {"kept": 1, "late": 0.0}
    assert Around(inner=Grown(late=2.0)).model_dump() == {"inner": {"kept": 1, "late": 2.0}}
    assert Around.model_validate(Around(inner=Grown(late=2.0)).model_dump()).inner.late == 2.0
    assert digest_of(Grown(late=0.0).model_dump()) != digest_of(Grown().model_dump())


@pytest.mark.parametrize("kind", ["w_asymmetric", "sigma_asymmetric"])
def test_constants_are_shared_by_default_as_in_earlier_recipes(kind, tiny_recipe):
    def digest(**arguments):
        return Recipe.read(tiny_recipe.to_json() | {"treatments": {"a": {"kind": kind} | arguments}}).digest

    assert digest(shared=True) == digest()
    assert digest(shared=False) != digest()


def test_a_later_argument_of_an_architecture_does_not_change_digests(tiny_recipe, monkeypatch):
    def digest(architecture: type[Architecture], **arguments):
        monkeypatch.setitem(ARCHITECTURES, "lengthened", architecture)
        values = {"name": "lengthened", "widths": [64, 8, 10], **arguments}
        return Recipe.read(tiny_recipe.to_json() | {"architecture": values, "treatments": STANDARD}).digest

    assert digest(Longer) == digest(Shorter)
    assert digest(Longer, dilation=1) == digest(Shorter)
    assert digest(Longer, dilation=2) != digest(Shorter)


STANDARD = {"standard": {"kind": "standard"}}


@settings(deadline=None, max_examples=60)
@given(values=RECIPES)
def test_a_recipe_survives_json(values):
    recipe = Recipe.read(values)
    for again in (Recipe.model_validate_json(recipe.model_dump_json()), Recipe.read(in_json(recipe.to_json()))):
        assert again == recipe
        assert again.digest == recipe.digest
        assert again.draw(3) == recipe.draw(3)


def test_a_zoo_keeps_the_recipe_that_made_it(tiny_zoo, tiny_recipe):
    assert Recipe.of(tiny_zoo) == tiny_recipe
    assert tiny_zoo.manifest.digest == tiny_recipe.digest == digest_of(tiny_zoo.manifest.recipe)
