import pytest

from tests.zoo.data.scenarios import random_splits, write_arxiv


@pytest.fixture
def grey():
    """Images (n, 28, 28) and labels of both splits, as bytes."""
    return random_splits(28, 28)


@pytest.fixture
def colour():
    """Images (n, 3, 32, 32) and labels of both splits, as bytes."""
    return random_splits(3, 32, 32)


@pytest.fixture
def arxiv(tmp_path):
    """A folder with the archive of a graph with four nodes."""
    return write_arxiv(tmp_path)
