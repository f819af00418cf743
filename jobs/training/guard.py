"""Which updates of a step are applied, decided on the device: the host need not wait for it after every update."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jobs.recipe.contract import Terms, Update


@dataclass
class _Record:
    """Failures of one update since the host last asked.

    count: float32 scalar, number of steps that it has ended.
    values: its terms at the last of these steps, and the norm of its gradients, float32 (len(terms) + 1,).
    """

    count: Tensor
    values: Tensor


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Steps that one update has ended, since the host last asked.

    networks: those that it trains.
    count: number of steps.
    cause: what was not finite at the last of them, as text.
    """

    networks: tuple[str, ...]
    count: int
    cause: str


class Guard:
    """Let an update and all later ones of its step be left out if its loss or a gradient is not finite.

    device: of the losses. Its tensors are read by `read` alone.
    """

    def __init__(self, device: torch.device) -> None:
        self.failed = torch.zeros((), device=device)
        """1 if an update of the present step is left out, else 0; float32, as fused optimizers take it."""
        self._in_a_row = torch.zeros((), device=device)
        self._longest = torch.zeros((), device=device)
        self._records: dict[tuple[tuple[str, ...], tuple[str, ...]], _Record] = {}  # by networks and terms

    @property
    def in_a_row(self) -> int:
        """Number of steps in a row, up to the last one, in which an update was left out. Waits for the device."""
        return int(self._in_a_row)

    @in_a_row.setter
    def in_a_row(self, number: int) -> None:
        self._in_a_row.fill_(number)

    def begin_step(self) -> None:
        """Expect the updates of the next step."""
        self.failed.zero_()

    def judge(self, update: Update, terms: Terms, norm: Tensor) -> None:
        """Set `failed` if the norm of an update's gradients is not finite. It is NaN or infinite if a term is."""
        values = torch.stack((*terms.values(), norm)).float()
        record = self._records.setdefault(
            (update.networks, tuple(terms)), _Record(torch.zeros_like(self.failed), torch.zeros_like(values))
        )
        bad = norm.isfinite().logical_not().float()
        is_first = bad > self.failed
        record.count += is_first
        record.values = torch.where(is_first, values, record.values)
        torch.maximum(self.failed, bad, out=self.failed)

    def end_step(self) -> None:
        """Count the step."""
        self._in_a_row.add_(1).mul_(self.failed)
        torch.maximum(self._longest, self._in_a_row, out=self._longest)

    def read(self) -> tuple[int, list[Failure]]:
        """Return the most steps in a row that an update has ended, and the failures, since the last call.

        Waits for the device once, and once more for each update that has failed.
        """
        numbers = torch.stack([self._longest, *(record.count for record in self._records.values())]).tolist()
        failures = [
            Failure(networks=networks, count=int(count), cause=_cause(networks, terms, record.values.tolist()))
            for ((networks, terms), record), count in zip(self._records.items(), numbers[1:], strict=True)
            if count
        ]
        if failures or numbers[0]:
            self._longest.copy_(self._in_a_row)
            self._records.clear()
        return int(numbers[0]), failures


def _cause(networks: tuple[str, ...], terms: tuple[str, ...], values: list[float]) -> str:
    for name, value in zip(terms, values, strict=False):  # the last value is the norm
        if value - value != 0:  # NaN or infinite
            return f"{name} is {value}"
    return f"a gradient of {', '.join(networks)}, here or elsewhere, is not finite"
