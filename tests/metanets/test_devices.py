"""Metanetworks on a second device: they learn and predict the same as on the CPU."""

import numpy as np
import pytest
import torch

from metanets.metanet import Metanet
from metanets.models import MODELS
from metanets.training import train
from tests import pretend
from tests.metanets.scenarios import FEW, STANDARD, held_out

pytestmark = pytest.mark.skipif(
    not pretend.available(), reason="this version of PyTorch has no devices written in Python"
)


@pytest.mark.parametrize("model", [model for model in MODELS if model != "scale_gmn"])  # which reads no GELU
def test_a_metanetwork_learns_the_same_on_a_second_device(planted_zoo, model, tmp_path):
    networks = held_out(planted_zoo)
    (expected,) = train(STANDARD, planted_zoo, model, settings=FEW)
    with pretend.Pretend():
        (found,) = train(STANDARD, planted_zoo, model, settings=FEW, device="pretend")
        predicted = found.predict(networks)
        if model != "boosted":  # which is not saved
            found.save(tmp_path / "there.safetensors")
    np.testing.assert_allclose(predicted, expected.predict(networks), rtol=1e-3, atol=1e-4)
    if model != "boosted":
        again = Metanet.load(tmp_path / "there.safetensors").predict(networks)
        np.testing.assert_allclose(again, predicted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("model", ["mlp", "statnn", "gmn"])
def test_a_training_step_reads_nothing_back(planted_zoo, model, monkeypatch):
    forward, reads = torch.Tensor.backward, []
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: (reads.append(len(pretend.READS)), forward(loss))[1])
    monkeypatch.setattr("metanets.descent._validate", lambda trainees, *_: np.zeros(len(trainees.modules)))
    with pretend.Pretend():
        train(STANDARD, planted_zoo, model, settings=FEW, device="pretend")
    assert len(reads) > FEW.epochs
    assert reads[0] == reads[-1]
