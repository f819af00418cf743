"""Look for the files of feature weights, and tell how to get them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from files.durable import file_digest
from pipeline.doctor.findings import Finding


class _File(NamedTuple):
    """One published file of weights.

    metrics: what it is for.
    name: of the file; its digits before the ending are the first ones of its SHA-256.
    address: where its makers publish it.
    """

    metrics: str
    name: str
    address: str


_FILES = {
    "inception": _File(
        "FID, KID, P-IDS, U-IDS",
        "weights-inception-2015-12-05-6726825d.pth",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    ),
    "alexnet": _File(
        "LPIPS with AlexNet",
        "alexnet-owt-7be5be79.pth",
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    ),
    "vgg16": _File("LPIPS with VGG-16", "vgg16-397923af.pth", "https://download.pytorch.org/models/vgg16-397923af.pth"),
}


def check_weights(evaluate: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield a finding for each file. evaluate: the block of params.yaml."""
    for key, file in _FILES.items():
        yield _check_configured(key, file, evaluate[key]) if evaluate.get(key) else _look_for(key, file)


def check_features(generators: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield a finding for each generator whose losses compare features of a network that others have trained.

    generators: the block of params.yaml.
    """
    for name, config in generators.items():
        features = config.get("features", "random") if isinstance(config, dict) else "random"
        what = f"generators.{name}.features is {features}"
        if features == "imagenet":
            note = f"training looks for torchvision's file in {_hub()}, and downloads it if it is not there"
            yield Finding("weights", "fine", f"{what}: {note}")
        elif features != "random" and Path(features).is_file():
            yield Finding("weights", "fine", what)
        elif features != "random":
            yield Finding("weights", "broken", f"{what}, which is missing", "put the file there, or set random")


def _hub() -> Path:
    """Return the folder in which torch keeps downloads."""
    return Path(os.environ.get("TORCH_HOME") or Path.home() / ".cache" / "torch") / "hub" / "checkpoints"


def _check_configured(key: str, file: _File, configured: Mapping[str, str]) -> Finding:
    path, expected = Path(configured["path"]), str(configured["sha256"]).lower()
    if not path.is_file():
        return Finding("weights", "broken", f"evaluate.{key}: {path} is missing", f"fetch {file.address}")
    digest = file_digest(path)
    if digest != expected:
        remedy = f"fetch {file.address} again, or correct evaluate.{key}.sha256"
        return Finding("weights", "broken", f"evaluate.{key}: {path} has SHA-256 {digest}, expected {expected}", remedy)
    return Finding("weights", "fine", f"evaluate.{key}, for {file.metrics}: {path}")


def _look_for(key: str, file: _File) -> Finding:
    """Tell how to set a file that params.yaml does not name: where it is, if torch has kept one, or how to get it."""
    hub = _hub() / file.name
    detail = f"evaluate.{key} is not set: {file.metrics} not computed"
    if not hub.is_file():
        return Finding("weights", "missing", detail, f"fetch {file.address} to {hub}, then run doctor again")
    digest = file_digest(hub)
    if not digest.startswith(file.name.rpartition("-")[2].removesuffix(".pth")):
        return Finding(
            "weights", "missing", f"{detail}; {hub} is damaged: SHA-256 {digest}", f"fetch {file.address} again"
        )
    words = (f"evaluate.{key}.path={hub}", f"evaluate.{key}.sha256={digest}")
    remedy = shlex.join(("python", "-m", "pipeline", "configure", *words))
    return Finding("weights", "missing", detail, remedy)
