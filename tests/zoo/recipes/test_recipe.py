import copy
import json
import pickle
import subprocess
import sys
import tomllib
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from zoo import Recipe
from zoo.errors import RecipeError
from zoo.recipes.distribution import Distribution
from zoo.recipes.recipe import BUILT_IN, HYPERPARAMETERS, built_in_recipes
from zoo.seeds import rng_for

STUDIED = {
    "standard",
    "narrow",
    "w_asymmetric",
    "w_masked",
    "w_initialised",
    "w_rescaled",
    "sigma_asymmetric",
    "syre",
}


@pytest.fixture
def values():
    return tomllib.loads((BUILT_IN / "digits-mlp.toml").read_text())


def changed(values, path, value):
    """The recipe's values with one field changed; None removes it."""
    values = copy.deepcopy(values)
    *parents, last = path.split(".")
    inner = values
    for parent in parents:
        inner = inner[parent]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return values


@pytest.mark.parametrize("name", built_in_recipes())
def test_every_built_in_recipe_has_all_studied_treatments_and_they_fit(name):
    recipe = Recipe.load(name)
    assert recipe.name == name
    assert recipe.description
    assert recipe.treatments.keys() >= STUDIED
    treated = {treatment: recipe.treat(treatment) for treatment in recipe.treatments}
    size = treated["standard"].layout.size
    for treatment in recipe.treatments.keys() - {"narrow"}:
        assert treated[treatment].layout.size == size
    assert treated["narrow"].layout.size < size


@pytest.mark.parametrize("name", built_in_recipes())
def test_narrow_network_has_as_many_parameters_as_w_asymmetric_trains(name):
    recipe = Recipe.load(name)
    trains = int(recipe.treat("w_asymmetric").mask.sum())
    assert recipe.treat("narrow").layout.size == pytest.approx(trains, rel=0.05)


@pytest.mark.parametrize("name", built_in_recipes())
def test_controls_have_the_arguments_of_the_treatment_they_control_for(name):
    treatments = Recipe.load(name).treatments
    w, masked = treatments["w_asymmetric"], treatments["w_masked"]
    assert masked.kind == "w_asymmetric"
    assert masked.kappa == 0
    for control, shared in (("w_initialised", True), ("w_rescaled", False)):
        assert treatments[control].shared is shared
        assert (treatments[control].n_fix, treatments[control].kappa) == (w.n_fix, w.kappa)


def test_digits_mlp_draws_from_the_ranges_of_the_small_cnn_zoo():
    training = Recipe.load("digits-mlp").training
    assert training.learning_rate.log_uniform == pytest.approx((0.5 * 10**-3.5, 0.5), rel=1e-12)
    assert training.weight_decay.log_uniform == pytest.approx((10**-5, 10**-1), rel=1e-12)
    assert training.label_smoothing.uniform == (0.0, 0.2)
    assert training.epochs.integers == (2, 40)


MISTAKES = {
    "unknown field": ("pairz", 3, "pairz: unknown field (did you mean 'pairs'?)"),
    "unknown field of the data": ("data.train_limits", 3, "(did you mean 'train_limit'?)"),
    "unknown field of the training": ("training.epoch", 3, "training.epoch: unknown field (did you mean 'epochs'?)"),
    "unknown distribution": ("training.epochs", {"integer": [1, 2]}, "epochs.integer: unknown field (did you mean"),
    "unknown augmentation": ("training.augmentation", {"flips": True}, "(did you mean 'flip'?)"),
    "unknown argument": ("architecture.width", [64, 10], "width: unknown field (did you mean 'widths'?)"),
    "unknown argument of a treatment": ("treatments.narrow.widht", 1, "narrow.widht: unknown field (did you mean"),
    "another treatment's argument": ("treatments.syre.width", 1, "treatments.syre.width: unknown field; remove it"),
    "unknown data": ("data.name", "digit", "data.name: 'digit' is not known (did you mean 'digits'?)"),
    "unknown architecture": ("architecture.name", "mpl", "architecture: unknown name 'mpl' (did you mean 'mlp'?)"),
    "no architecture": ("architecture.name", None, "architecture.name: missing; add one of mlp, cnn, resnet"),
    "unknown norm": ("architecture.norm", "layr", "architecture.norm: 'layr' is not known (did you mean 'layer'?)"),
    "unknown optimiser": ("training.optimizer", "adam", "'adam' is not known (did you mean 'adamw'?)"),
    "unknown kind": ("treatments.standard.kind", "standrd", "unknown kind 'standrd' (did you mean 'standard'?)"),
    "no kind": ("treatments.standard.kind", None, "treatments.standard.kind: missing; add one of standard, "),
    "unknown mask": ("treatments.w_asymmetric.mask", "random_subset", "w_asymmetric.mask: 'random_subset' is not"),
    "unknown mask in a list": ("treatments.w_asymmetric.mask", ["densest", "dense"], "mask.1: 'dense' is not known"),
    "unknown mask in a table": ("treatments.w_asymmetric.mask", {"*": "dense"}, "(did you mean 'densest'?)"),
    "no pairs": ("pairs", None, "pairs: missing; add it"),
    "0 pairs": ("pairs", 0, "pairs: Input should be greater than 0 (found 0)"),
    "negative seed": ("seed", -1, "seed: Input should be greater than or equal to 0 (found -1)"),
    "0 examples": ("data.train_limit", 0, "data.train_limit: Input should be greater than 0"),
    "0 units": ("architecture.widths", [64, 0, 10], "architecture.widths.1: Input should be greater than 0 (found 0)"),
    "one width": ("architecture.widths", [64], "architecture.widths: Value should have at least 2 items"),
    "0 examples a batch": ("training.batch_size", 0, "training.batch_size: Input should be greater than 0"),
    "width 0": ("treatments.narrow.width", 0, "treatments.narrow.width: Input should be greater than 0"),
    "negative n_fix": ("treatments.w_asymmetric.n_fix", -1, "w_asymmetric.n_fix: Input should be greater than or"),
    "negative kappa": ("treatments.w_asymmetric.kappa", [1, -1, 1], "w_asymmetric.kappa.1: Input should be greater"),
    "beta of 1": ("training.betas", [0.9, 1.0], "training.betas.1: Input should be less than 1"),
    "bounds out of order": (
        "training.learning_rate",
        {"uniform": [0.2, 0.1]},
        "bounds 0.2 and 0.1 must be finite and in increasing order",
    ),
    "infinite bound": (
        "training.learning_rate",
        {"uniform": [0.1, float("inf")]},
        "0.1 and inf must be finite and in increasing order",
    ),
    "NaN": ("training.learning_rate", float("nan"), "must be finite and in increasing order"),
    "log of 0": ("training.weight_decay", {"log_uniform": [0, 0.1]}, "the bounds of log_uniform must be above 0"),
    "two distributions": (
        "training.epochs",
        {"constant": 1, "integers": [1, 2]},
        "give a number or one of uniform, log_uniform, integers",
    ),
    "no distribution": ("training.epochs", {}, "give a number or one of uniform, log_uniform, integers"),
    "a truth value": ("training.learning_rate", True, "training.learning_rate: Input should be"),
    "learning rate of 0": ("training.learning_rate", 0, "training.learning_rate: must be above 0"),
    "negative decay": ("training.weight_decay", -0.1, "training.weight_decay: must not be negative"),
    "smoothing of 1": ("training.label_smoothing", {"uniform": [0, 1]}, "must be at least 0 and less than 1"),
    "half an epoch": ("training.epochs", 2.5, "training.epochs: must be a whole number above 0"),
    "epochs that are no integers": ("training.epochs", {"uniform": [1, 3]}, "training.epochs: must be a whole number"),
    "0 epochs": ("training.epochs", {"integers": [0, 3]}, "training.epochs: must be a whole number above 0"),
    "no treatments": ("treatments", {}, "treatments: Dictionary should have at least 1 item"),
    "a name that is no folder": ("name", "../zoo", "name: String should match pattern"),
}


@pytest.mark.parametrize(("path", "value", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_a_recipe_is_one_line_that_names_the_field(values, path, value, message):
    with pytest.raises(RecipeError) as caught:
        Recipe.read(changed(values, path, value), "my.toml")
    line = str(caught.value)
    assert line.startswith("my.toml: ")
    assert message in line
    assert "\n" not in line


UNFIT = {
    "n_fix for two of three weights": ("n_fix", [1, 2], "n_fix: 2 values for 3 weights"),
    "n_fix for no weight": ("n_fix", {"hidden.9*": 1, "*": 1}, "n_fix: pattern 'hidden.9*' matches no weight"),
    "n_fix beyond a row": ("n_fix", 64, "n_fix: 64 for hidden.0.linear.weight, whose rows have 64 entries"),
    "too few distinct masks": ("n_fix", 0, "n_fix: hidden.0.linear.weight has 32 rows but only 1 distinct masks"),
    "wholly fixed at 0": ("kappa", 0, "wholly_fixed: output.weight has kappa 0"),
    "wholly fixed nothing": ("wholly_fixed", ["hidden"], "wholly_fixed: there is no weight hidden.weight"),
}


@pytest.mark.parametrize(("field", "value", "message"), UNFIT.values(), ids=UNFIT)
def test_the_error_names_the_field_of_a_treatment_that_does_not_fit_the_architecture(values, field, value, message):
    given = {"kind": "w_asymmetric", "n_fix": 8, "wholly_fixed": ["output"], field: value}
    recipe = Recipe.read(changed(values, "treatments.mine", given))
    with pytest.raises(RecipeError) as caught:
        recipe.treat("mine")
    assert str(caught.value).startswith(f"digits-mlp: treatments.mine.{message}")


def test_an_unknown_recipe_is_an_error_that_suggests_the_nearest():
    with pytest.raises(RecipeError, match=r"^digits-mpl: no such recipe \(did you mean 'digits-mlp'\?\)"):
        Recipe.load("digits-mpl")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"pairs = [", "not valid TOML"), (b"\xff\xfe", "not valid TOML: no UTF-8"), (None, "cannot be read (No such")],
)
def test_the_error_names_a_file_that_is_not_toml(tmp_path, content, message):
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        Recipe.load(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_toml_file_equals_the_built_in_recipe_of_the_same_content(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text((BUILT_IN / "digits-mlp.toml").read_text())
    assert Recipe.load(path) == Recipe.load("digits-mlp")


def test_an_unknown_treatment_is_an_error_that_suggests_the_nearest():
    with pytest.raises(RecipeError, match=r"has no 'w_asymetric' \(did you mean 'w_asymmetric'\?\)"):
        Recipe.load("digits-mlp").only(["standard", "w_asymetric"])


def test_chosen_treatments_keep_the_order_of_the_recipe():
    assert list(Recipe.load("digits-mlp").only(["syre", "standard"]).treatments) == ["standard", "syre"]


@pytest.mark.parametrize(
    ("given", "reference"),
    [
        ({"uniform": [-1.0, 3.0]}, stats.uniform(-1, 4)),
        ({"log_uniform": [1e-5, 0.1]}, stats.loguniform(1e-5, 0.1)),
    ],
)
def test_draws_follow_their_distribution(given, reference):
    distribution = Distribution(**given)
    draws = np.array([distribution.draw(rng_for(0, "draw", i)) for i in range(2000)])
    assert distribution.low <= draws.min()
    assert draws.max() <= distribution.high
    assert stats.kstest(draws, reference.cdf).pvalue > 0.01


def test_integers_include_both_bounds_and_are_equally_likely():
    draws = [Distribution(integers=(2, 6)).draw(rng_for(0, "draw", i)) for i in range(2000)]
    counts = Counter(draws)
    assert all(type(draw) is int for draw in draws)
    assert sorted(counts) == [2, 3, 4, 5, 6]
    assert stats.chisquare(list(counts.values())).pvalue > 0.01


def test_a_plain_number_is_a_constant():
    distribution = Distribution.model_validate(0.1)
    assert {distribution.draw(rng_for(0, "draw", i)) for i in range(5)} == {0.1}


def test_hyperparameters_of_pairs_follow_the_recipe_and_are_independent():
    recipe = Recipe.load("digits-mlp")
    pairs = [recipe.draw(pair) for pair in range(2000)]
    draws = {name: [pair[name] for pair in pairs] for name in HYPERPARAMETERS}
    exponent = -np.log10(2 * np.array(draws["learning_rate"]))
    assert stats.kstest(exponent, stats.uniform(0, 3.5).cdf).pvalue > 0.01
    assert stats.kstest(draws["label_smoothing"], stats.uniform(0, 0.2).cdf).pvalue > 0.01
    assert set(draws["epochs"]) == set(range(2, 41))
    correlations = stats.spearmanr(np.array(list(draws.values())).T).statistic - np.eye(4)
    assert np.abs(correlations).max() < 0.08  # 3.5 standard errors


def test_splits_are_a_half_and_two_quarters():
    recipe = Recipe.load("digits-mlp")
    counts = Counter(recipe.split_of(pair) for pair in range(4000))
    expected = {"train": 2000, "validation": 1000, "test": 1000}
    assert counts.keys() == expected.keys()
    assert stats.chisquare([counts[split] for split in expected], list(expected.values())).pvalue > 0.01


def test_digest_does_not_depend_on_order_or_description(values):
    recipe = Recipe.read(values)
    backwards = json.loads(json.dumps(values), object_pairs_hook=lambda pairs: dict(reversed(pairs)))  # at every level
    assert list(backwards) != list(values)
    assert Recipe.read(backwards).digest == recipe.digest
    assert Recipe.read(changed(values, "description", "Other words.")).digest == recipe.digest


@pytest.mark.parametrize(
    ("path", "value"),
    [("seed", 1), ("pairs", 3), ("training.warmup", 0.1), ("treatments.syre.std", 0.02), ("data.train_limit", 100)],
)
def test_digest_differs_with_content(values, path, value):
    assert Recipe.read(changed(values, path, value)).digest != Recipe.read(values).digest


def test_draws_do_not_depend_on_the_process():
    program = (
        "from zoo import Recipe; r = Recipe.load('digits-mlp'); "
        "print(repr((r.digest, [(r.draw(i), r.split_of(i)) for i in range(20)])))"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    ]
    recipe = Recipe.load("digits-mlp")
    here = repr((recipe.digest, [(recipe.draw(i), recipe.split_of(i)) for i in range(20)]))
    assert outputs == [here, here]


@pytest.mark.parametrize("name", built_in_recipes())
def test_recipe_survives_json_and_pickling(name):
    recipe = Recipe.load(name)
    for again in (Recipe.model_validate_json(recipe.model_dump_json()), pickle.loads(pickle.dumps(recipe))):
        assert again == recipe
        assert again.digest == recipe.digest
        assert again.draw(7) == recipe.draw(7)
