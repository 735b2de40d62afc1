"""Architectures that cannot become a zoo are refused in one line, before anything is written."""

import pytest
from pydantic import PositiveInt
from torch import nn
from torch.nn import functional

from zoo import Architecture, Recipe, generate
from zoo.errors import RecipeError
from zoo.networks.architectures import ARCHITECTURES


class Net(Architecture):
    """Two linear layers on digits."""

    def __init__(self, hidden: PositiveInt = 8, classes: PositiveInt = 10) -> None:
        super().__init__()
        self.a, self.act, self.b = nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, classes)
        self.axes = {"a.weight": ("h", "input"), "a.bias": ("h",), "b.weight": ("output", "h"), "b.bias": ("output",)}
        self.sites = {"act": "h"}

    def forward(self, x):
        return self.b(self.act(self.a(x.flatten(1))))


class WithDropout(Net):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)


class WithFunctionalDropout(Net):
    def forward(self, x):
        return functional.dropout(super().forward(x), training=self.training)


class WithBatchNorm(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8)
        self.axes |= {f"norm.{name}": ("h",) for name in ("weight", "bias", "running_mean", "running_var")}

    def forward(self, x):
        return self.b(self.act(self.norm(self.a(x.flatten(1)))))


class WithUnnamedStatistics(WithBatchNorm):
    def __init__(self) -> None:
        super().__init__()
        del self.axes["norm.running_mean"]


class WithBatchNormAndFunctionalDropout(WithBatchNorm):
    def forward(self, x):
        return functional.dropout(super().forward(x), training=self.training)


class WithUnknownSite(Net):
    def __init__(self) -> None:
        super().__init__()
        self.sites = {"activation": "h"}


class WithUnknownAxis(Net):
    def __init__(self) -> None:
        super().__init__()
        self.sites = {"act": "hidden"}


class WithDemand(Net):
    def __init__(self, hidden: PositiveInt = 8) -> None:
        if hidden % 2 == 0:
            raise ValueError("hidden must be odd")
        super().__init__(hidden)


STANDARD = {"kind": "standard"}


@pytest.mark.parametrize(
    ("architecture", "treatment", "message"),
    [
        (
            WithDropout,
            STANDARD,
            "small: architecture: net: drop: Dropout drops units in training only; set its dropout to 0, or leave it out",
        ),
        (WithUnnamedStatistics, STANDARD, r"net: axes and parameters differ in \['norm.running_mean'\]"),
        (WithBatchNormAndFunctionalDropout, STANDARD, "net has other outputs in training than in evaluation"),
        (WithFunctionalDropout, STANDARD, "net has other outputs in training than in evaluation"),
        (WithUnknownSite, STANDARD, "small: architecture: net: sites: .* has no attribute `activation`"),
        (WithUnknownAxis, {"kind": "sigma_asymmetric"}, "small: architecture: net: sites: act acts on 'hidden'"),
        (WithDemand, STANDARD, "small: architecture: net: hidden must be odd; correct it"),
        (Net, {"kind": "narrow", "width": 0.5}, "small: architecture: net: Net has no method `narrow`"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_networks_that_cannot_be_trained_are_refused_by_name(monkeypatch, tmp_path, architecture, treatment, message):
    monkeypatch.setitem(ARCHITECTURES, "net", architecture)
    recipe = Recipe.read(
        {
            "name": "small",
            "pairs": 2,
            "data": {"name": "digits"},
            "architecture": {"name": "net"},
            "training": {"learning_rate": 0.01, "epochs": 1},
            "treatments": {"one": treatment},
        }
    )
    with pytest.raises(RecipeError, match=message) as caught:
        generate(recipe, tmp_path / "zoo")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "zoo").exists()
