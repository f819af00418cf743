"""A column that is not what params.yaml describes is refused by everything that opens it, in one line."""

import dataclasses
import functools
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.photographs import photograph
from datasets.shards.column import Column
from datasets.shards.manifest import MANIFEST_NAME, read_manifest, write_manifest
from datasets.shards.records import ShardError
from datasets.sources import source_config
from files.errors import UserError
from jobs.checks.footprint import footprint
from jobs.evaluation.job import EvaluationJob
from jobs.evaluation.loop import Evaluation
from jobs.generators import card
from jobs.runs.folder import CheckpointError
from jobs.runs.receipt import Receipt, write_receipt
from jobs.training.samples import TrainingSamples
from jobs.training.settings import SampleConfig
from masks.config import MaskConfig
from pipeline.columns import open_column
from pipeline.layout import column_folder, columns_of
from pipeline.planning import plan
from pipeline.stages import edges, evaluate, ingest, masks, report, semantics, train
from pipeline.trained import open_receipt
from pipeline.verbs import audit, duplicates, takedown
from tests.pipeline.pictures import small_params, write_pictures, write_shards

GENERATORS = ("context_encoder", "edge_connect", "sge_net")


count_once = functools.cache(footprint)  # it builds the networks, of the same generators in each test


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The shards of two data sets with equal counts, keys and settings, and one of their folders of pictures."""
    folder = tmp_path_factory.mktemp("made")
    write_pictures(folder / "pictures", 10)
    shutil.copytree(folder / "pictures", folder / "others")
    for number, path in enumerate(sorted((folder / "others").rglob("*.png"))):
        Image.fromarray(photograph(1000 + number, 48)).save(path)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("others", "pictures"):
            (folder / f"of_{name}").mkdir()
            patch.chdir(folder / f"of_{name}")
            write_shards(small_params(folder / name))
    return folder


@pytest.fixture
def params(made, tmp_path, monkeypatch):
    shutil.copytree(made / "of_pictures", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "footprint", count_once)
    configs = {name: card(name).Config.tiny() for name in GENERATORS}
    return dataclasses.replace(small_params(made / "pictures"), generators=configs)


def found_by_audit(params):
    """Raise what an audit finds, as the other verbs do."""
    if problems := [f"{f.file} {f.problem}" for f in audit.run(params).findings if "run: dvc repro" in f.problem]:
        raise ShardError("; ".join(problems))


OPENERS = {
    "edge": lambda params: edges.run(params),
    "mask": lambda params: masks.run(params),
    "semantics": lambda params: semantics.run(params),
    "train images": lambda params: train.run(params, "context_encoder"),
    "train edges": lambda params: train.run(params, "edge_connect"),
    "train labels": lambda params: train.run(params, "sge_net"),
    "plan": plan.run,
    "evaluate": lambda params: evaluate.run(params, "baselines"),
    "report": report.run,
    "audit": found_by_audit,
}
TRAIN = {"train images", "train edges", "train labels", "plan", "audit"}
SCORE = {"evaluate", "report", "audit"}
DERIVE = {"edge", "mask", "semantics"}


def replace_in(params, block, **values):
    return dataclasses.replace(params, **{block: dataclasses.replace(getattr(params, block), **values)})


def exchange(params, made):
    Path("shards/image/train").rename("aside")
    Path("shards/image/val").rename("shards/image/train")
    Path("aside").rename("shards/image/val")
    return params


def copy_over(source, target):
    """Replace one folder by another, of these shards or of those of the other data set."""

    def change(params, made):
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(made / "of_others" / target if source is None else source, target)
        return params

    return change


def all_of_val_over_train(params, made):
    for column in ("image", "edge", "semantics"):
        copy_over(column_folder(column, "val"), column_folder(column, "train"))(params, made)
    return params


def copy_edges(params, made):
    shutil.copytree("shards/edges/edge", "shards/edges/fine")
    params = dataclasses.replace(params, edges={**params.edges, "fine": params.edges["edge"]})
    return replace_in(params, "train", edges="fine")


def edit(folder, **values):
    """Change entries of a manifest as an editor does."""

    def change(params, made):
        path = Path(folder, MANIFEST_NAME)
        entries = json.loads(path.read_text())
        entries["parameters"] |= values
        path.write_text(json.dumps(entries, indent=2, sort_keys=True) + "\n")
        return dataclasses.replace(params, edges={"edge": dataclasses.replace(params.edges["edge"], **values)})

    return change


def asks(block, **values):
    """Ask for other values of one block of params.yaml."""
    return lambda params, made: replace_in(params, block, **values)


def asks_for_edges(**values):
    return lambda params, made: dataclasses.replace(
        params, edges={"edge": dataclasses.replace(params.edges["edge"], **values)}
    )


def other_dataset(params, made):
    return dataclasses.replace(params, dataset=source_config(name="photos"))


CASES = {
    "train and val exchanged": (exchange, TRAIN | SCORE | DERIVE, 'split is "'),
    "val over train": (
        copy_over("shards/image/val", "shards/image/train"), TRAIN | DERIVE - {"mask"},
        'split is "val", expected "train"',
    ),
    "all of val over train": (all_of_val_over_train, TRAIN | DERIVE - {"mask"}, 'split is "val", expected "train"'),
    "edges of val over those of train": (
        copy_over("shards/edges/edge/val", "shards/edges/edge/train"), {"train edges", "plan", "audit"},
        'split is "val", expected "train"',
    ),
    "images of another folder": (copy_over(None, "shards/image/train"), TRAIN, "was made from"),
    "masks of another folder": (copy_over(None, "shards/mask/val"), SCORE, "was made from"),
    "another data set": (other_dataset, TRAIN | SCORE | DERIVE, 'dataset is "folder", expected "photos"'),
    "edges under another name": (copy_edges, {"train edges", "plan", "audit"}, 'column is "edge", expected "fine"'),
    "other sigma": (asks_for_edges(sigma=0.5), {"train edges", "plan", "audit"}, "sigma is 2.0, expected 0.5"),
    "other threshold": (asks_for_edges(low_threshold=0.05), {"train edges", "audit"}, "low_threshold is 0.1, expected"),
    "manifest edited to fit": (
        edit("shards/edges/edge/train", sigma=0.5), {"train edges", "plan", "audit"}, "was edited"
    ),
    "other masks": (
        lambda params, made: replace_in(params, "suite", masks=MaskConfig(kind="irregular")), SCORE,
        'masks.kind is "free_form", expected "irregular"',
    ),
    "masks of another length": (
        lambda params, made: replace_in(params, "suite", masks=MaskConfig(max_strokes=2)), SCORE,
        "masks.max_strokes is 3, expected 2",
    ),
    "other seed": (
        lambda params, made: dataclasses.replace(params, seed=7), SCORE | {"train labels", "plan"},
        "seed is 20181101, expected 7",
    ),
    "other size": (asks("ingest", size=16), TRAIN | SCORE | DERIVE, "size is 32, expected 16"),
    "other rule": (asks("ingest", rule="squash"), TRAIN | SCORE | DERIVE, 'rule is "crop", expected "squash"'),
    "other shards": (asks("ingest", records_per_shard=3), TRAIN | SCORE, "records_per_shard is 7, expected 3"),
    "other format": (asks("ingest", format="jpeg"), TRAIN, 'format is "png", expected "jpeg"'),
    "other share": (asks("dataset", val_share=0.3), TRAIN | SCORE | DERIVE, "val_share is 0.1, expected 0.3"),
    "other clusters": (
        asks("semantics", num_clusters=5), {"train labels", "plan", "audit"}, "num_clusters is 4, expected 5"
    ),
    "other weight": (
        asks("semantics", position_weight=1.0), {"train labels", "plan", "audit"},
        "position_weight is 0.5, expected 1.0",
    ),
    "other labels": (
        asks("semantics", source="segmenter"), {"train labels", "plan", "audit"},
        'source is "kmeans", expected "segmenter"',
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_column_that_is_not_what_was_asked_for_is_refused(params, made, case):
    change, refused_by, problem = CASES[case]
    params = change(params, made)
    before = {str(path) for path in Path().rglob("*")}
    for name in sorted(refused_by):
        with pytest.raises(UserError) as error:
            OPENERS[name](params)
        text = str(error.value)
        assert problem in text, (name, text)
        assert "shards/" in text, (name, text)
        assert "run: dvc repro" in text, (name, text)
        assert len(text.splitlines()) == 1
    made_now = {path for path in map(str, Path().rglob("*")) if not path.startswith(("shards/.", ".made"))}
    assert made_now <= before  # nothing was written


@pytest.mark.parametrize(
    "change",
    [
        asks("ingest", max_rejected=0.5),
        asks("ingest", jpeg_quality=80),  # PNG has none
        asks("semantics", segmenter="fcn_resnet50"),  # k-means has none
        asks("dataset", root="elsewhere"),  # a data set that is moved or packed keeps its shards
        asks("evaluate", gallery_images=1),
        asks("train", log_steps=3),
    ],
)
def test_settings_that_decide_nothing_of_a_column_are_not_compared(params, made, change):
    params = change(params, made)
    for split in ("train", "val"):
        images = open_column(params, "image", split)
        for column in columns_of(split)[1:]:
            open_column(params, column, split, images=images)
    assert not audit.run(params).findings
    one = dataclasses.replace(params, generators={"context_encoder": params.generators["context_encoder"]})
    assert plan.run(one).records == 8


def test_a_format_is_that_of_train_alone(params, made):
    params = replace_in(params, "ingest", format="jpeg", jpeg_quality=80)
    open_column(params, "image", "val")
    with pytest.raises(ShardError, match='format is "png", expected "jpeg"'):
        open_column(params, "image", "train")


def test_images_of_an_edited_list_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "celeba"
    (root / "img_align_celeba").mkdir(parents=True)
    for number in range(4):
        Image.fromarray(photograph(number, 64)).save(root / f"img_align_celeba/{number:06d}.jpg")
    partition = root / "list_eval_partition.txt"
    partition.write_text("".join(f"{number:06d}.jpg {number // 2}\n" for number in range(4)))
    params = dataclasses.replace(small_params(root), dataset=source_config(name="celeba", root=str(root)))
    ingest.run(params)
    open_column(params, "image", "train")
    partition.write_text(partition.read_text().replace("000003.jpg 1", "000003.jpg 0"))
    with pytest.raises(ShardError, match=r"list_files\.list_eval_partition\.txt is .*run: dvc repro ingest"):
        open_column(params, "image", "train")
    partition.unlink()  # on a machine without the source there is nothing to compare with
    open_column(params, "image", "train")


def test_workers_read_the_manifests_that_were_checked(params):
    folders = {column: column_folder(column, "train") for column in ("image", "edge")}
    digests = {column: read_manifest(folder).digest for column, folder in folders.items()}
    TrainingSamples(folders, SampleConfig(), 1, digests=digests)
    suite = {column: column_folder(column, "val") for column in ("image", "mask")}
    job = EvaluationJob(
        name="baselines",
        images=str(suite["image"]),
        masks=str(suite["mask"]),
        model=None,
        config=dataclasses.replace(params.evaluate, baselines=("mean_colour",)),
        images_digest=read_manifest(suite["image"]).digest,
        masks_digest=read_manifest(suite["mask"]).digest,
    )
    assert Evaluation(job)(range(1)).scores
    for folder in (folders["edge"], suite["mask"]):
        manifest = read_manifest(folder)
        write_manifest(folder, dataclasses.replace(manifest, licence="another"))
        assert Column(folder).manifest.digest != manifest.digest
    with pytest.raises(ShardError, match=f"its manifest is [0-9a-f]+, expected {digests['edge']}"):
        TrainingSamples(folders, SampleConfig(), 1, digests=digests)
    with pytest.raises(ShardError, match=f"its manifest is [0-9a-f]+, expected {job.masks_digest}"):
        Evaluation(job)(range(1))


def test_removal_and_comparison_need_the_split_that_a_folder_names(params, made):
    exchange(params, made)
    with pytest.raises(ShardError, match='split is "val", expected "train"'):
        takedown.run(params, ["train/001"], "asked")
    with pytest.raises(ShardError, match='split is "val", expected "train"'):
        duplicates.run(4, as_json=True)


def test_after_a_takedown_every_column_is_what_it_was_asked_to_be(params):
    takedown.run(params, ["train/001"], "asked")
    images = open_column(params, "image", "train")
    assert images.manifest.records == 7
    for column in ("edge", "semantics"):
        open_column(params, column, "train", images=images)
    assert not audit.run(params).findings


def test_a_model_under_the_name_of_another_generator_is_refused(params):
    receipt = Receipt(
        generator="csa", config={}, edges=None, seed=1, steps=1, samples_seen=1, world_sizes=(1,), not_repeatable=(),
        images="0" * 64, columns={}, train={}, weights_sha256="0" * 64, experiment="0" * 64, parameters={},
    )  # fmt: skip
    for name in ("csa", "edge_connect"):
        Path("models", name).mkdir(parents=True)
        write_receipt(Path("models", name), receipt)
    assert open_receipt("csa") == receipt
    with pytest.raises(CheckpointError, match="models/edge_connect is a training of csa, expected edge_connect"):
        evaluate.run(params, "edge_connect")
