"""Hessian-vector products of the loss for many networks at once, and the largest eigenvalues of the Hessians.

Source: Lanczos 1950, *An iteration method for the solution of the eigenvalue problem of linear differential and
integral operators*, https://doi.org/10.6028/jres.045.026.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zoo.networks.stack import Stack, cross_entropy, run_stack

AT_ONCE = 256  # examples run together, so that what double backward stores of them stays in cache
STEPS = 24  # Lanczos iterations: several times the number of eigenvalues, of which the extreme ones converge first
LARGEST = 5  # eigenvalues to return

Vectors = Float[Tensor, "networks parameters"]
Product = Callable[[Vectors], Vectors]
Mask = Bool[Tensor, "*networks parameters"]


def hessian_product(
    stack: Stack,
    mask: Mask,
    x: Float[Tensor, "examples ..."],
    y: Int[Tensor, " examples"],
    v: Vectors,
) -> Vectors:
    """Return `H v` of each network, H the Hessian of its mean cross-entropy over trainable entries.

    Arguments:
        stack: Networks.
        mask: True where entries train, one for all networks or one for each.
        x: Inputs of the examples.
        y: Labels of the examples.
        v: Vector of each network, zero at fixed entries.
    """
    rows = stack.rows.detach().requires_grad_()
    total = torch.zeros_like(rows)
    for images, labels in zip(x.split(AT_ONCE), y.split(AT_ONCE), strict=True):
        logits = run_stack(stack.with_rows(rows), images.expand(len(rows), *images.shape))
        loss = cross_entropy(logits, labels.expand(len(rows), -1)) * (len(labels) / len(y))
        (gradient,) = torch.autograd.grad(loss.sum(), rows, create_graph=True)
        total += torch.autograd.grad((gradient * v).sum(), rows)[0]
    return total * mask


def largest_eigenvalues(
    product: Product, start: Vectors, *, steps: int = STEPS, largest: int = LARGEST
) -> Float[Tensor, "networks largest"]:
    """Return the largest eigenvalues of symmetric linear maps, the largest first, by Lanczos iteration.

    Each new direction is made orthogonal to all earlier ones twice, because rounding makes the first pass inexact.

    Arguments:
        product: Function that applies the map of each network to a vector of its own.
        start: Random initial vector of each network.
        steps: Number of iterations, at least as many as eigenvalues.
        largest: Number of eigenvalues.
    """
    q = start / start.norm(dim=1, keepdim=True)
    basis, diagonal, beside = q[:, None], [], []  # basis is (K, steps, P)
    greatest = start.new_zeros(len(start))
    for _ in range(steps):
        w = product(q)
        diagonal.append((w * q).sum(1))
        for _ in range(2):
            w = w - torch.einsum("ksp,ks->kp", basis, torch.einsum("ksp,kp->ks", basis, w))
        norm = w.norm(dim=1)
        greatest = greatest.maximum(norm)
        norm = norm.where(norm > 100 * torch.finfo(norm.dtype).eps * greatest, 0)  # no direction is left
        beside.append(norm)
        q = torch.where(norm[:, None] > 0, w / norm[:, None], 0)
        basis = torch.cat([basis, q[:, None]], 1)
    tridiagonal = torch.diag_embed(torch.stack(diagonal, 1))
    off = torch.diag_embed(torch.stack(beside[:-1], 1), offset=1)
    return torch.linalg.eigvalsh(tridiagonal + off + off.mT).flip(1)[:, :largest]
