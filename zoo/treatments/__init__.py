"""Symmetry treatments by kind. To add one, write a subclass of `Treatment` with its `kind` and add a line here."""

from zoo.treatments.base import Treated, Treatment
from zoo.treatments.narrow import Narrow
from zoo.treatments.sigma_asymmetric import SigmaAsymmetric
from zoo.treatments.standard import Standard
from zoo.treatments.syre import Syre
from zoo.treatments.w_asymmetric import WAsymmetric
from zoo.treatments.w_initialised import WInitialised

TREATMENTS: dict[str, type[Treatment]] = {
    "standard": Standard,
    "narrow": Narrow,
    "w_asymmetric": WAsymmetric,
    "w_initialised": WInitialised,
    "sigma_asymmetric": SigmaAsymmetric,
    "syre": Syre,
}

__all__ = ["TREATMENTS", "Treated", "Treatment"]
