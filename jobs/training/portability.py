"""Instruction sets that are pinned, so that a training gives equal weights on different x86-64 processors.

Libraries choose their fastest code for the processor, and sums in another order are rounded differently. These
environment variables pin the choice. Libraries read them once, when they are loaded, so a process must have them from
its start.
"""

from __future__ import annotations

from collections.abc import Mapping

from files.errors import UserError

PINNED = {
    "ATEN_CPU_CAPABILITY": "avx2",  # PyTorch's own operations
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # convolutions
    # The only branch of MKL that is the same on processors of all makers.
    "MKL_CBWR": "COMPATIBLE",  # matrix products
    "OPENBLAS_CORETYPE": "Haswell",  # products of NumPy
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ",  # exp, log and their like
}
"""Environment variables of a portable training. The sets are those of processors since 2013: AVX2 and FMA."""


class PortabilityError(UserError):
    """A portable training is not possible here. The message says why and what to do."""


def is_pinned(environment: Mapping[str, str]) -> bool:
    """Return whether an environment has all variables of `PINNED` with their values."""
    return environment.items() >= PINNED.items()


def check_pinned(environment: Mapping[str, str]) -> None:
    """Check that this process computes with the pinned instruction sets.

    environment: of this process.
    Raises PortabilityError if it lacks a variable, or if the processor lacks the instructions.
    """
    if not is_pinned(environment):
        lacking = ", ".join(name for name, value in PINNED.items() if environment.get(name) != value)
        raise PortabilityError(
            f"train.portable needs {lacking} before Python starts; train with: python -m pipeline train, or dvc repro"
        )
    import torch  # not earlier: it reads the variables

    if (found := torch.backends.cpu.get_cpu_capability()) != "AVX2":
        raise PortabilityError(
            f"train.portable needs an x86-64 processor with AVX2, and PyTorch finds {found}; set it to false, or train "
            "on another machine"
        )
