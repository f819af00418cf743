"""Settings that training processes on several machines share: of the network, and of the instruction sets."""

from __future__ import annotations

from collections.abc import Mapping

import psutil

_PASSED_ON = ("NCCL_", "TORCH_NCCL_", "GLOO_", "PYTORCH_")
_INSTRUCTION_SETS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "OPENBLAS_CORETYPE", "GLIBC_TUNABLES")
"""Read when a library is loaded. `train.portable` sets all of them, see jobs/training/portability.py."""


def passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the command that tune NCCL, gloo and PyTorch or choose instruction sets.

    Workers get them too.
    """
    return {n: value for n, value in environment.items() if n.startswith(_PASSED_ON) or n in _INSTRUCTION_SETS}


def find_interface(address: str) -> str | None:
    """Return the network interface of this machine that has an address; None if none has."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address for each in addresses):
            return name
    return None
