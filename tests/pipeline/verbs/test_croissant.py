"""The description of an ingested data set names its files and fields, and its validator accepts it."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from files.durable import file_digest
from pipeline.__main__ import main
from pipeline.lineage.croissant import CroissantError, make_croissant
from tests.pipeline.pictures import small_params, write_pictures


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    from pipeline.stages import ingest

    folder = tmp_path_factory.mktemp("made")
    write_pictures(folder / "pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ingest.run(small_params(folder / "pictures"))
        yield folder


def test_every_file_has_its_digest_and_every_field_is_a_table_column(made):
    assert main(["croissant", "croissant.json"]) == 0
    tree = json.loads(Path("croissant.json").read_text())
    assert (tree["name"], tree["license"]) == ("folder", "yours to know")
    files = {file["contentUrl"]: file["sha256"] for file in tree["distribution"]}
    found = {path.as_posix() for path in Path("shards/image").rglob("*.*") if path.suffix in (".tar", ".parquet")}
    assert files == {name: file_digest(Path(name)) for name in found}
    for records in tree["recordSet"]:
        names = pq.read_schema(Path("shards/image", records["@id"], "records.parquet")).names
        assert {field["source"]["extract"]["column"] for field in records["field"]} <= set(names)


def test_the_official_validator_accepts_it(made):
    import mlcroissant  # it takes seconds

    main(["croissant", "croissant.json"])
    issues = mlcroissant.Dataset(jsonld="croissant.json").metadata.ctx.issues
    assert not issues.errors
    records = mlcroissant.Dataset(jsonld="croissant.json").records("val")
    assert next(iter(records))["val/key"].decode().startswith("val/")
    tree = json.loads(Path("croissant.json").read_text())
    del tree["recordSet"][0]["field"][0]["dataType"], tree["name"]
    Path("broken.json").write_text(json.dumps(tree))
    with pytest.raises(mlcroissant.ValidationError):
        mlcroissant.Dataset(jsonld="broken.json")


def test_without_images_it_says_what_to_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CroissantError, match="dvc repro ingest"):
        make_croissant()
