"""Which versions become the champion, and what is said of those that do not."""

import json
import re
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest

from jobs.evaluation.metrics.value import Missing, Value
from jobs.evaluation.results import OVERALL, Group, Summary, write_summary
from jobs.runs.history import Version, history_folder, read_alias
from jobs.tracking.mlflow_registry import find_version
from jobs.tracking.model_files import ModelError
from pipeline.lineage.checks import Check
from pipeline.lineage.evaluations import EvaluationError, attach_evaluation, read_evaluations
from pipeline.lineage.promotion import _NEEDED_TAGS, Assessed, find_refusals
from pipeline.lineage.settings import PromoteConfig
from pipeline.verbs import promote
from tests.pipeline.verbs.registries import NAME, enter_copy, make_registry

TAGS = {
    **dict.fromkeys(_NEEDED_TAGS, "a" * 64),
    "git_commit": "c" * 40,
    "git_dirty": "False",
    "git_changes": "",
    "licence": "research; no publication",
}


def summary(suite="s1", **changed):
    metrics = {"psnr": Value(30.0, 29.0, 31.0), "l1_hole_percent": Value(5.0, 4.0, 6.0), **changed}
    return Summary(suite, 4, {"unet": {OVERALL: Group(8, metrics), "0.1-0.2": Group(4, metrics)}}, {}, {})


def assessed(number="2", evaluations=None, broken=(), **tags):
    tags = {name: value for name, value in {**TAGS, **tags}.items() if value is not None}
    version = Version(name=NAME, version=number, run_id="r", tags=tags)
    return Assessed(
        version=version, broken=broken, evaluations={"s1": summary()} if evaluations is None else evaluations
    )


BROKEN = Check(link="inpaint-unet@2: weights", expected="a", found="b", by="SHA256SUMS", remedy="train again")
FAULTS = {
    "a dirty tree": (assessed(git_dirty="True", git_changes="jobs/a.py"), "dirty tree: jobs/a.py differed"),
    "no tag of dirt": (assessed(git_dirty=None), "dirty tree"),
    "no commit": (assessed(git_commit="unknown"), "names no commit"),
    **{f"no {tag}": (assessed(**{tag: None}), f"lineage is missing: it has no tag {tag};") for tag in _NEEDED_TAGS},
    "a broken link": (assessed(broken=[BROKEN]), "inpaint-unet@2: weights is not as recorded: expected a, found b"),
    "a takedown": (assessed(takedown="train/7"), "trained on pictures that were taken down since (train/7)"),
    "a forbidden licence": (assessed(licence="Non-Commercial use"), "has 'non-commercial', which promote.forbidden"),
    "no evaluation": (assessed(evaluations={}), "it is not evaluated; run: dvc repro evaluate@unet"),
    "another suite": (
        assessed(evaluations={"s2": summary(suite="s2")}),
        "not evaluated on the suite s1, as inpaint-unet@1 is, but on s2",
    ),
    "fewer decibels": (
        assessed(evaluations={"s1": summary(psnr=Value(28.99, 28.0, 30.0))}),
        "PSNR is 28.99, worse than the limit 29.00 of inpaint-unet@1",
    ),
    "a higher error": (
        assessed(evaluations={"s1": summary(l1_hole_percent=Value(6.01))}),
        "L1 in hole is 6.01, worse than the limit 6.00",
    ),
    "a figure less": (assessed(evaluations={"s1": summary(l1_hole_percent=Missing("why"))}), "L1 in hole has no value"),
}  # fmt: skip
RULES = PromoteConfig(forbidden_licences=("non-commercial",))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_version_with_one_fault_is_refused_for_that_alone(fault):
    candidate, expected = FAULTS[fault]
    (refusal,) = find_refusals(candidate, assessed("1"), RULES)
    assert expected in refusal
    assert "\n" not in refusal


def test_a_version_without_fault_is_not_refused_and_reasons_add_up():
    assert list(find_refusals(assessed(), assessed("1"), RULES)) == []
    within = assessed(evaluations={"s1": summary(psnr=Value(29.0), l1_hole_percent=Value(6.0))})
    assert list(find_refusals(within, assessed("1"), RULES)) == []
    assert list(find_refusals(within, None, RULES)) == []
    both = assessed(git_dirty="True", takedown="x", evaluations={"s1": summary(l1_hole_percent=Value(9.0))})
    assert len(list(find_refusals(both, assessed("1"), RULES))) == 3


@pytest.fixture(scope="module")
def made(tmp_path_factory, empty_database):
    """Two registered versions that say that they were trained in a clean tree, of which the first is evaluated."""
    folder = make_registry(tmp_path_factory.mktemp("registry"), empty_database, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        for number in ("1", "2"):
            _make_clean(number)
        _attach(folder, "1", summary(), {"evaluation/psnr": 30.0})
    return folder


@pytest.fixture
def registry(made, tmp_path, monkeypatch):
    return enter_copy(made, tmp_path, monkeypatch)


def _make_clean(number):
    (record,) = history_folder().glob(f"versions/{NAME}-{number}-*.json")
    tree = json.loads(record.read_bytes())
    tree["tags"] |= {"git_commit": "c" * 40, "git_dirty": "False", "git_changes": ""}
    for tag in ("git_commit", "git_dirty", "git_changes"):
        mlflow.MlflowClient().set_model_version_tag(NAME, number, tag, tree["tags"][tag])
    record.write_text(json.dumps(tree))


def _attach(folder, number, result, figures):
    write_summary(folder / number / "summary.json", result)
    receipt = json.loads((folder / number / "model" / "receipt.json").read_bytes())
    attach_evaluation(find_version(NAME, number), receipt, folder / number / "summary.json", figures)


def test_a_version_becomes_champion_with_its_card_and_its_figures(registry):
    params, words = SimpleNamespace(promote=PromoteConfig()), Namespace(version="inpaint-unet@1", to="champion")
    assert promote.main(params, words) == 0
    client = mlflow.MlflowClient()
    version = client.get_model_version_by_alias(NAME, "champion")
    assert str(version.version) == read_alias(NAME, "champion") == "1"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", version.tags["champion_since"])
    card = version.description
    whole = Path(client.download_artifacts(version.run_id, "model_card.md", str(registry))).read_text()
    assert whole == f"# {NAME}\n\n{card}"
    assert client.get_run(version.run_id).data.tags["mlflow.note.content"] == card
    assert "Plain U-Net (pix2pix network of Isola et al.)" in client.get_registered_model(NAME).description
    assert "| all | 8 | 5.00 (4.00 to 6.00) | 30.00 (29.00 to 31.00) |" in card
    assert "| 0.1-0.2 | 4 |" in card
    for text in ("U-Net", version.tags["weights_sha256"], "| Licence of the data | none |", "## Intended use"):
        assert text in card
    (metric,) = client.get_logged_model(version.source.removeprefix("models:/")).metrics
    assert (metric.key, metric.value, metric.dataset_digest) == ("evaluation/psnr", 30.0, "s1")
    model = mlflow.pyfunc.load_model(f"models:/{NAME}/1")
    assert model.predict(model.input_example).shape == model.input_example["image"].shape


def test_a_worse_version_and_one_without_evaluation_are_refused_and_nothing_changes(registry):
    promote.run(PromoteConfig(), f"{NAME}@1")
    with pytest.raises(promote.PromotionError, match=f"{NAME}@2 is not promoted: it is not evaluated"):
        promote.run(PromoteConfig(), NAME)
    _attach(registry, "2", summary(psnr=Value(20.0)), {})
    with pytest.raises(promote.PromotionError, match=r"PSNR is 20.00, worse than the limit 29.00 of inpaint-unet@1"):
        promote.run(PromoteConfig(), NAME)
    with pytest.raises(promote.PromotionError, match="the licence of its data has 'none', which promote"):
        promote.run(PromoteConfig(forbidden_licences=("none",)), f"{NAME}@1")
    assert find_version(NAME, "champion").version == "1"
    assert promote.run(PromoteConfig(), f"{NAME}@1", "candidate").version.version == "1"


def test_one_changed_bit_of_weights_and_missing_lineage_are_refused(registry):
    model = mlflow.MlflowClient().get_model_version_download_uri(NAME, "1")
    weights = Path(model.removeprefix("file://"), "data", "model", "weights.safetensors")
    kept = weights.read_bytes()
    try:
        weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        with pytest.raises(promote.PromotionError, match=r"weights.safetensors is not as recorded: expected \w{64}, f"):
            promote.run(PromoteConfig(), f"{NAME}@1")
    finally:
        weights.write_bytes(kept)
    mlflow.MlflowClient().delete_model_version_tag(NAME, "1", "provenance_sha256")
    with pytest.raises(promote.PromotionError, match="lineage is missing: it has no tag provenance_sha256"):
        promote.run(PromoteConfig(), f"{NAME}@1")


def test_a_changed_evaluation_is_not_read(registry):
    version = find_version(NAME, "1")
    assert list(read_evaluations(version)) == ["s1"]
    with pytest.raises(EvaluationError, match="the evaluation of the suite s1 has digest"):
        read_evaluations(replace(version, tags={**version.tags, "evaluation_s1": "0" * 64}))


def test_a_version_that_does_not_exist_is_named(registry):
    with pytest.raises(ModelError, match="inpaint-unet@9 is not found"):
        promote.run(PromoteConfig(), f"{NAME}@9")
