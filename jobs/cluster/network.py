"""Settings of the network between training processes on several machines."""

from __future__ import annotations

from collections.abc import Mapping

import psutil

_PASSED_ON = ("NCCL_", "TORCH_NCCL_", "GLOO_", "PYTORCH_")


def passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the command by which NCCL, gloo and PyTorch are tuned. Workers get them too."""
    return {name: value for name, value in environment.items() if name.startswith(_PASSED_ON)}


def find_interface(address: str) -> str | None:
    """Return the network interface of this machine that has an address; None if none has."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address for each in addresses):
            return name
    return None
