"""Compute with other packages what `tests/benchmark/test_references.py` compares with, on the network in `network.json`.

These packages cannot all be installed beside the project, so they have an environment of their own:

    python -m venv references
    references/bin/pip install arviz==0.23.4 backpack-for-pytorch==1.7.1 curvlinops-for-pytorch==3.0.1 \
        laplace-torch==0.3 torchmetrics==1.9.0 torch==2.13.0
    references/bin/pip uninstall torchvision  # not used, and often of another build than torch
    references/bin/python tests/benchmark/references/make.py

The network is an MLP 64-6-10 with tanh. It was trained on the first 100 of 160 of scikit-learn's digits; predictions are
for the others. All figures are in double precision.
"""

import json
from importlib.metadata import version
from pathlib import Path

import arviz
import numpy as np
import torch
from curvlinops import GGNLinearOperator, HessianLinearOperator
from laplace import Laplace
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.functional.classification import binary_auroc, multiclass_accuracy, multiclass_calibration_error

FOLDER = Path(__file__).parent
PACKAGES = (
    "arviz",
    "backpack-for-pytorch",
    "curvlinops-for-pytorch",
    "laplace-torch",
    "numpy",
    "torch",
    "torchmetrics",
)
PRECISION = 3.0


def stored() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Return the network and its examples and labels."""
    values = json.loads((FOLDER / "network.json").read_text())
    network = nn.Sequential(nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, 10)).double()
    nn.utils.vector_to_parameters(torch.tensor(values["weights"], dtype=torch.float64), network.parameters())
    return network, torch.tensor(values["pixels"], dtype=torch.float64) / 16, torch.tensor(values["y"])


def of_laplace(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, object]:
    """Return the diagonal posterior of laplace-torch, its predictions, and the precision of greatest evidence."""
    posterior = Laplace(network, "classification", "all", "diag", prior_precision=PRECISION)
    posterior.fit(DataLoader(TensorDataset(x, y), batch_size=20))
    mean, covariance = posterior._glm_predictive_distribution(x[:3])
    precisions = posterior.posterior_precision.tolist()  # before the evidence is asked for, which changes the prior
    log_precision = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    descent = torch.optim.LBFGS([log_precision], lr=0.5, max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)

    def loss() -> torch.Tensor:
        descent.zero_grad()
        negative = -posterior.log_marginal_likelihood(log_precision.exp())
        negative.backward()
        return negative

    descent.step(loss)
    return {
        "backend": type(posterior.backend).__name__,
        "prior_precision": PRECISION,
        "posterior_precision": precisions,
        "mean": mean.tolist(),
        "covariance": covariance.tolist(),
        "best_precision": float(log_precision.exp()),
    }


def of_curvlinops(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, object]:
    """Return the eigenvalues and the trace of the Hessian, and its product with a vector."""
    loss, parameters = nn.CrossEntropyLoss(), list(network.parameters())
    hessian = HessianLinearOperator(network, loss, parameters, [(x, y)])
    size = sum(p.numel() for p in parameters)
    identity = torch.eye(size, dtype=torch.float64)
    dense, gauss_newton = hessian @ identity, GGNLinearOperator(network, loss, parameters, [(x, y)]) @ identity
    vector = torch.linspace(-1, 1, size, dtype=torch.float64)
    return {
        "largest_eigenvalues": torch.linalg.eigvalsh(dense).flip(0)[:5].tolist(),
        "trace": float(dense.trace()),
        "product_with_linspace": (hessian @ vector).tolist(),
        "diagonal_of_gauss_newton": gauss_newton.diagonal().tolist(),
    }


def of_torchmetrics(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    """Return how good the predictions are, and how well confidence tells examples from those with reversed pixels."""
    p, outside = network(x).softmax(1).detach(), network(x.flip(1)).softmax(1).detach()
    confidence, inside = torch.cat([p.amax(1), outside.amax(1)]), torch.tensor([1] * len(x) + [0] * len(x))
    return {
        "accuracy": float(multiclass_accuracy(p, y, 10, average="micro")),
        "calibration_error": float(multiclass_calibration_error(p, y, 10, n_bins=15, norm="l1")),
        "detection": float(binary_auroc(confidence, inside)),
    }


def of_arviz() -> dict[str, list[float]]:
    """Return R-hat of three sets of chains: mixed, one apart, and drifting."""
    mixed = np.random.default_rng(0).standard_normal((4, 200))
    drift = mixed + np.linspace(0, 1, 200)
    apart = mixed + np.array([[1.0], [0.0], [0.0], [0.0]])
    return {"rhat": [float(arviz.rhat(values)) for values in (mixed, apart, drift)]}


if __name__ == "__main__":
    network, x, y = stored()
    figures = {
        "versions": {package: version(package) for package in PACKAGES},
        "command": "python tests/benchmark/references/make.py",
        "laplace-torch": of_laplace(network, x[:100], y[:100]),
        "curvlinops": of_curvlinops(network, x[:100], y[:100]),
        "torchmetrics": of_torchmetrics(network, x[100:], y[100:]),
        "arviz": of_arviz(),
    }
    (FOLDER / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
