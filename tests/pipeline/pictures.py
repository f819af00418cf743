"""A small data set in a folder, its parameters, and its shards as the stages write them, in the working folder."""

from __future__ import annotations

import dataclasses
import tarfile
from pathlib import Path

from PIL import Image

from benchmarks.photographs import photograph
from datasets.ingest import IngestConfig
from datasets.maps.semantics import SemanticsConfig
from datasets.shards.manifest import read_manifest, write_manifest
from datasets.sources import source_config
from files.durable import file_digest
from pipeline.columns import expected
from pipeline.inputs import StageInputs
from pipeline.layout import column_folder, columns_of
from pipeline.lineage.records import write_record
from pipeline.params import Params, read_params
from pipeline.stages import edges, ingest, masks, semantics

ROOT = Path(__file__).resolve().parent.parent.parent


def write_pictures(folder: Path, count: int = 40) -> Path:
    """PNGs of 48x48; every fifth under val/, the others under train/."""
    for number in range(count):
        path = folder / ("val" if number % 5 == 0 else "train") / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(number, 48)).save(path)
    return folder


def small_params(root: Path, **ingest: object) -> Params:
    """The committed parameters, for a folder of pictures, in this process."""
    read = read_params(ROOT / "params.yaml")
    return dataclasses.replace(
        read,
        dataset=source_config(name="folder", root=str(root)),
        ingest=IngestConfig(**{"size": 32, "format": "png", "records_per_shard": 7, "max_rejected": 0.1, **ingest}),
        semantics=SemanticsConfig(num_clusters=4),
        train=dataclasses.replace(read.train, ema_decay=None),  # the demo's averages are not what is tested
        cluster=dataclasses.replace(read.cluster, num_workers=0, train_workers=0),
    )


def write_shards(params: Params) -> None:
    """All four columns."""
    ingest.run(params)
    edges.run(params)
    semantics.run(params)
    masks.run(params)


def describe_shards(params: Params) -> None:
    """Rewrite the manifests of the train split so that they state what params.yaml asks for, and write their records.

    For shards that were made in code and not by the stages.
    """
    made_from = ""
    for column in columns_of("train"):
        folder, described = column_folder(column, "train"), expected(params, column, "train")
        manifest = read_manifest(folder)
        manifest = dataclasses.replace(
            manifest,
            dataset=described.dataset,
            parameters={**manifest.parameters, **described.parameters},
            made_from=made_from,
        )
        write_manifest(folder, manifest)
        made_from = made_from or manifest.digest
    for stage in ("ingest", "edges"):
        write_record(StageInputs.read(stage))


def tree(folder: Path = Path("shards")) -> dict[str, str]:
    """Digest of every file below a folder, hidden ones included, but for notes that are no output."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and ".made" not in path.parts)
    return {str(path): file_digest(path) for path in files}


def write_gzip_tar(folder: Path, archive: Path) -> Path:
    """Pack the files of a folder into a .tar.gz."""
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            tar.add(path, arcname=path.relative_to(folder))
    return archive
