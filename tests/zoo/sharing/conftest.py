import datasets
import pytest


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    """Use a temporary cache, and show no progress bars."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        datasets.disable_progress_bars()
        yield
        datasets.enable_progress_bars()
