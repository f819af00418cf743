"""What is checked before the first stage works: files and values that only a later stage needs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from datasets.sources import named
from datasets.tombstones import TombstoneError
from jobs.cluster.gpus import find_missing_gpus
from masks.config import MaskConfig
from masks.masks import open_masks
from pipeline.layout import TOMBSTONES
from pipeline.params import Params, ParamsError

log = logging.getLogger(__name__)


def check_start(params: Params) -> None:
    """Check what would stop a later stage, perhaps after hours of work.

    A machine that ingests need not be the one that trains, and its images serve other generators, too: GPUs that are
    missing, and generators for images of another size, are only logged here.
    Raises ParamsError for a split that the data set cannot have and for a file that is missing; MaskFilesError for a
    mask collection without digest, with the digest; TombstoneError if a project has no file of tombstones.
    """
    if Path("dvc.yaml").is_file() and not TOMBSTONES.exists() and not TOMBSTONES.is_symlink():
        raise TombstoneError(f"{TOMBSTONES} is missing, the list of pictures to keep out; restore it from git")
    splits = [split for split in named(params.dataset.name).card.splits if split in params.dataset.splits]
    for key, split in (("suite.split", params.suite.split), ("the split of every training", "train")):
        if split not in splits:
            raise ParamsError(
                f"params.yaml: {key} is {split!r}, but {params.dataset.name} with these dataset.splits has "
                f"{', '.join(splits) or 'none'}"
            )
    crop, ingest = params.train.samples.crop, params.ingest
    side = crop or (ingest.size if ingest.rule in ("crop", "squash", "cut") else None)
    for name, config in params.generators.items():
        if side is not None and getattr(config, "image_size", side) != side:
            log.warning(
                "params.yaml: generators.%s.image_size is %d, but its images will have a side of %d (%s); set both to "
                "the same before the training",
                name, config.image_size, side, "train.samples.crop" if crop else "ingest.size",
            )  # fmt: skip
    for key, path in _files(params):
        if not Path(path).expanduser().exists():
            raise ParamsError(f"params.yaml: {key}: {path} does not exist; correct the path")
    for config in (params.suite.masks, params.train.samples.masks):
        if config.files and config.files.sha256 is None:
            open_masks(config)
    if problem := find_missing_gpus(params.cluster):
        log.warning("%s", problem)


def _files(params: Params) -> Iterator[tuple[str, str | Path]]:
    """Yield key and path of the files and folders that later stages read."""
    for name in ("inception", "alexnet"):
        if weights := getattr(params.evaluate, name):
            yield f"evaluate.{name}.path", weights.path
    for name, config in params.generators.items():
        if getattr(config, "features", "random") not in ("imagenet", "random"):
            yield f"generators.{name}.features", config.features
    if params.semantics.source == "segmenter" and params.semantics.segmenter_weights != "default":
        yield "semantics.segmenter_weights", params.semantics.segmenter_weights
    masks: dict[str, MaskConfig] = {"suite": params.suite.masks, "train.samples": params.train.samples.masks}
    for key, config in masks.items():
        if config.files:
            yield f"{key}.masks.files.root", config.files.root
