"""Describe the ingested data set as Croissant, the format of MLCommons that catalogues of data sets read.

Specification: Croissant 1.0, mlcommons.org/croissant. Its own validator, `mlcroissant validate`, accepts the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets.shards.manifest import RECORDS_NAME, Manifest, read_manifest
from datasets.sources import SOURCES
from files.errors import UserError
from pipeline.layout import column_folder, image_splits

_TERMS = (
    "citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet", "format",
    "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex",
    "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform",
)  # fmt: skip
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS},
}
_FIELDS = {
    "key": ("sc:Text", "name of the record"),
    "field": ("sc:Text", "suffix of the member of the shard that has the picture"),
    "shard": ("sc:Integer", "number of the shard"),
    "offset": ("sc:Integer", "of the picture in the shard, in bytes"),
    "length": ("sc:Integer", "of the picture, in bytes"),
    "source": ("sc:Text", "name of the file that the picture was made from"),
    "width": ("sc:Integer", "of the picture, in pixels"),
    "height": ("sc:Integer", "of the picture, in pixels"),
    "group": ("sc:Text", "name shared by pictures of the same thing"),
}
"""Table columns of records.parquet -> type and meaning. Digests are left out: Croissant has no type for raw bytes."""


class CroissantError(UserError):
    """There is no ingested data set. The message says what to run."""


def make_croissant() -> dict[str, Any]:
    """Return the description of the images in shards/ as JSON-LD. Paths are relative to the checkout.

    Raises CroissantError without images, ManifestError for a damaged manifest.
    """
    manifests = {split: read_manifest(column_folder("image", split)) for split in image_splits()}
    if not manifests:
        raise CroissantError("shards/image holds no complete split; run: dvc repro ingest")
    first = next(iter(manifests.values()))
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": first.dataset,
        "description": _description(manifests),
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "license": first.licence,
        "url": f"urn:sha256:{first.digest}",
        "distribution": [file for split, manifest in manifests.items() for file in _files(split, manifest)],
        "recordSet": [_record_set(split) for split in manifests],
    }


def _description(manifests: dict[str, Manifest]) -> str:
    counts = ", ".join(f"{split} {manifest.records:,}" for split, manifest in manifests.items())
    dataset = next(iter(manifests.values())).dataset
    source = SOURCES.get(dataset)
    consent = f" Consent of the persons shown: {source.card.consent}." if source else ""
    defects = "".join(f" Known defect: {defect}." for defect in source.card.defects) if source else ""
    return f"Pictures of {dataset}, in shards: {counts}.{consent}{defects}"


def _files(split: str, manifest: Manifest) -> Iterator[dict[str, Any]]:
    """Yield the descriptions of the table of a split and of its shards."""
    folder = column_folder("image", split)
    yield _file(folder / RECORDS_NAME, "application/x-parquet", manifest.records_sha256)
    for shard in manifest.shards:
        yield {**_file(folder / shard.name, "application/x-tar", shard.sha256), "contentSize": f"{shard.bytes} B"}


def _file(path: Path, encoding: str, sha256: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": path.as_posix(),
        "name": path.as_posix(),
        "contentUrl": path.as_posix(),
        "encodingFormat": encoding,
        "sha256": sha256,
    }


def _record_set(split: str) -> dict[str, Any]:
    table = (column_folder("image", split) / RECORDS_NAME).as_posix()
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{split}/{name}",
            "name": f"{split}/{name}",
            "description": meaning,
            "dataType": kind,
            "source": {"fileObject": {"@id": table}, "extract": {"column": name}},
        }
        for name, (kind, meaning) in _FIELDS.items()
    ]
    key = {"@id": f"{split}/key"}
    return {"@type": "cr:RecordSet", "@id": split, "name": split, "key": key, "field": fields}
