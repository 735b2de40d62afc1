import sys

import pytest

from zoo import AsymZooError
from zoo.errors import extra, nearest


def test_a_missing_package_is_an_error_in_one_line_that_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(AsymZooError) as caught, extra("report"):
        import matplotlib  # noqa: F401
    assert str(caught.value) == "matplotlib is not installed; pip install 'asymzoo[report]'"


@pytest.mark.parametrize(
    ("name", "found"),
    [("tset", " (did you mean 'test'?)"), ("val", " (did you mean 'validation'?)"), ("", ""), ("nonsense", "")],
)
def test_the_nearest_name_is_similar_or_starts_the_same(name, found):
    assert nearest(name, ["train", "validation", "test"]) == found
