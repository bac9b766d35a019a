"""The Muon optimizer: orthogonalised momentum for every weight that is a matrix, AdamW for the rest.

With AdamW alone both networks stayed on a plateau for hundreds of steps; with Muon they leave it within
tens. Source of the method and its coefficients: Keller Jordan, "Muon", 2024.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from training.networks.workspace import precision_of

MOMENTUM = 0.95
#: Coefficients and number of the quintic Newton-Schulz iterations.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
#: Weights whose shorter side is at most this long are not worth orthogonalising.
_SHORT_SIDE = 4


class Muon:
    """Optimises matrices and convolutions with Muon and everything else with AdamW; at rate 0, all with AdamW."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], rate: float, adam_rate: float) -> None:
        every = list(parameters)
        self._matrices = [p for p in every if rate and p.ndim >= 2 and min(p.shape[0], p[0].numel()) > _SHORT_SIDE]
        matrices = {id(p) for p in self._matrices}
        self._rate, self._adam_rate = rate, adam_rate
        rest = [p for p in every if id(p) not in matrices]
        self._adam = torch.optim.AdamW(rest, lr=adam_rate, betas=(0.9, 0.95), weight_decay=0.0)
        self._momenta = [torch.zeros_like(p) for p in self._matrices]

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """Take one step with both learning rates multiplied by `scale`."""
        for group in self._adam.param_groups:
            group["lr"] = self._adam_rate * scale
        self._adam.step()
        for parameter, momentum in zip(self._matrices, self._momenta, strict=True):
            if parameter.grad is None:
                continue
            momentum.mul_(MOMENTUM).add_(parameter.grad)
            direction = orthogonalise((parameter.grad + MOMENTUM * momentum).reshape(parameter.shape[0], -1))
            tall = max(1.0, direction.shape[0] / direction.shape[1]) ** 0.5
            parameter.add_(direction.reshape(parameter.shape), alpha=-self._rate * scale * tall)

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to resume, as tensors and plain values."""
        return {"adam": self._adam.state_dict(), "momenta": self._momenta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state returned by `state_dict`."""
        self._adam.load_state_dict(state["adam"])
        for momentum, saved in zip(self._momenta, state["momenta"], strict=True):
            momentum.copy_(saved)


def orthogonalise(matrix: Tensor) -> Tensor:
    """Move the singular values of a matrix close to one by Newton-Schulz iterations, in the fast precision."""
    a, b, c = _QUINTIC
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.T).to(precision_of(matrix.device))
    x = x / (x.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    direction: Tensor = (x if wide else x.T).to(matrix.dtype)
    return direction
