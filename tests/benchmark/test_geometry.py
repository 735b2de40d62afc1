import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA

from benchmark.phenomena.geometry import measure, principal_variances
from tests.benchmark.conftest import TREATMENTS
from zoo.errors import TaskError
from zoo.seeds import rng_for
from zoo.statistics import over_couples
from zoo.store.networks import Networks


@pytest.mark.parametrize("treatment", TREATMENTS)
def test_distances_angles_and_components_are_those_of_scipy_and_scikit_learn(replicas, data, treatment):
    networks = replicas[treatment]
    found, trainable = measure(networks, data)[0], networks.mask
    rows = networks.weights[:][:, trainable].double().numpy()
    assert found.distance["whole"].mean == pytest.approx(pdist(rows).mean())
    assert found.distance["per_parameter"].mean == pytest.approx(pdist(rows).mean() / np.sqrt(int(trainable.sum())))
    assert found.cosine.mean == pytest.approx(1 - pdist(rows, "cosine").mean())
    expected = over_couples(pdist(rows))
    assert (found.distance["whole"].low, found.distance["whole"].high) == pytest.approx((expected.low, expected.high))
    fractions = PCA().fit(rows).explained_variance_ratio_[:8]
    assert np.allclose(found.spectrum, fractions)
    assert found.dimension == pytest.approx(1 / (fractions**2).sum())
    for bound, count in found.components.items():
        assert fractions[:count].sum() >= float(bound) - 1e-9
        assert fractions[: count - 1].sum() < float(bound)


def test_aligned_networks_are_nearer_and_at_smaller_angles(replicas, data):
    plain, aligned = measure(replicas["standard"], data)
    assert (plain.aligned, aligned.aligned) == (False, True)
    assert aligned.distance["whole"].mean < plain.distance["whole"].mean
    assert aligned.cosine.mean > plain.cosine.mean
    assert [found.aligned for found in measure(replicas["sigma_asymmetric"], data)] == [False]


def test_copies_in_another_order_are_far_apart_until_they_are_aligned(replicas, data, monkeypatch):
    stack = replicas["standard"].stack([0] * 5)
    shuffled = stack.permute(stack.layout.random_permutations(rng_for(0, "permutation"), 5))
    noise = 1e-4 * torch.from_numpy(rng_for(0, "noise").standard_normal(shuffled.rows.shape)).float()
    disturbed = shuffled.with_rows(shuffled.rows + noise)
    monkeypatch.setattr(Networks, "stack", lambda networks: disturbed)
    plain, aligned = measure(replicas["standard"][:5], data)
    assert plain.distance["whole"].mean > 1
    assert aligned.distance["whole"].mean < 0.02
    assert aligned.cosine.mean > 0.999


def test_the_dimension_of_equal_variances_is_their_number():
    rows = torch.eye(5, 9, dtype=torch.float64)  # a simplex, whose variance is equal in the four directions it spans
    spectrum = principal_variances(rows)
    assert np.allclose(spectrum, 0.25)
    assert 1 / np.square(spectrum).sum() == pytest.approx(4)


def test_three_networks_are_the_least(replicas, data):
    with pytest.raises(TaskError, match="standard has 2 trained networks; 3 or more are needed"):
        measure(replicas["standard"][:2], data)


def test_findings_name_pairs_of_the_first_networks(replicas, data):
    assert measure(replicas["standard"][[7, 5, 6, 1]], data, most=3)[0].networks == [7, 5, 6]
