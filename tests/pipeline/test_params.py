import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest
from dvc.utils.serialize import load_yaml
from ruamel.yaml import YAML

from jobs.generators import card, names
from masks.config import MaskFiles
from pipeline import params as params_module
from pipeline.params import ParamsError, read_params
from pipeline.ranges import range_of

ROOT = Path(__file__).resolve().parent.parent.parent


def changed(tmp_path, change):
    tree = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text())
    change(tree)
    path = tmp_path / "params.yaml"
    YAML(typ="safe", pure=True).dump(tree, path)
    return path


def test_dvc_reads_every_value_as_we_do():
    ours = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text())
    assert load_yaml(str(ROOT / "params.yaml")) == ours


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(sed=1), r"params.yaml: sed is not a key; did you mean seed\?"),
        (lambda t: t["ingest"].update(sise=1), r"params.yaml: ingest.sise is not a key; did you mean size\?"),
        (lambda t: t["train"]["samples"]["masks"].update(knd=1), r"train.samples.masks.knd is not a key; .* kind\?"),
        (lambda t: t["generators"]["edge_connect"].update(learning_rat=1), r"edge_connect.learning_rat is not a key; "),
        (lambda t: t["generators"].update(edge_conect={}), r"'edge_conect' is not a generator; did you mean edge_con"),
        (lambda t: t["generators"].update({"../x": {}}), r"generators has the key '../x'; names are made of"),
        (
            lambda t: t["dataset"].update(name="photoes"),
            r"dataset.name: 'photoes' is not a data set; did you mean ",
        ),
        (
            lambda t: t["dataset"].update(variant="large"),
            r"variant is not a key of photos; there are name, ",
        ),
        (lambda t: t["dataset"].update(rot="/x"), r"yaml: dataset.rot is not a key of photos; did you mean root\?"),
        (lambda t: t["dataset"].update(name="dtd", split_numbr=2), r"of dtd; did you mean split_number\?"),
        (lambda t: t["dataset"].update(name="dtd", split_number=11), r"dataset: split_number must be in 1..10, got 11"),
        (lambda t: t["dataset"].update(name="dtd", split_number="2"), r"dataset.split_number: .*integer, got '2'"),
        (lambda t: t["dataset"].update(name="places2", variant="l"), r"dataset.variant: .*'small' or 'large', got 'l'"),
        (lambda t: t["dataset"].update(splits=["valid"]), r"dataset: splits must be some of train, val, test"),
        (lambda t: t["dataset"].update(name=3), r"params.yaml: dataset.name: .*string, got 3"),
        (lambda t: t["dataset"].pop("name"), r"params.yaml: dataset.name is missing; add it"),
        (lambda t: t.update(dataset=None), r"params.yaml: dataset: .*got None"),
        (lambda t: t.pop("dataset"), r"params.yaml: dataset is missing; add it"),
        (lambda t: t["ingest"].update(size="64"), r"params.yaml: ingest.size: .* valid integer, got '64'"),
        (
            lambda t: t["ingest"].update(rule="stretch"),
            r"ingest.rule: .*'crop', 'squash', .* or 'keep', got 'stretch'",
        ),
        (lambda t: t["generators"]["edge_connect"].update(batch_size=2.5), r"batch_size: .*integer"),
        (lambda t: t["generators"]["deepfill_v2"].update(steps=True), r"generators.deepfill_v2.steps: .*integer"),
        (lambda t: t["suite"]["masks"].update(max_strokes=0), r"suite.masks: .*max_strokes"),
        (lambda t: t.pop("seed"), r"params.yaml: seed is missing; add it"),
        (lambda t: t["edges"]["edge"].update(sigme=1), r"edges.edge.sigme is not a key; did you mean sigma\?"),
        (lambda t: t["edges"].update({"../x": {}}), r"edges has the key '../x'; a column's name is made of"),
        (lambda t: t["edges"].update(image={}), r"edges has the key 'image'; .* none of image, mask, semantics"),
        (
            lambda t: t["train"].update(edges="fine"),
            r"train.edges is 'fine', which is no column of edges; there are edge",
        ),
        (lambda t: t.update(edges={}), r"train.edges is 'edge', which is no column of edges"),
        (lambda t: t["suite"]["masks"].update(kind="files"), r"suite.masks: kind files needs files.root"),
        (
            lambda t: t["suite"]["masks"].update(kind="files", files={"root": "m.zip"}),
            r"masks.files: root must be an abs",
        ),
        (lambda t: t.update(generators={}), r"generators is empty"),
        (lambda t: t["dataset"].update(root="~/pics"), r"dataset.root begins with ~, .* write the whole path"),
        (lambda t: t["dataset"].update(watch="~"), r"dataset.watch begins with ~"),
        (lambda t: t["cluster"].update(storage="~x/runs"), r"cluster.storage begins with ~"),
        (lambda t: t["store"].update(cache="~/cache"), r"store.cache begins with ~"),
        (lambda t: t["generators"]["edge_connect"].update(features="~/vgg.pt"), r"edge_connect.features begins with ~"),
        (lambda t: t["evaluate"].update(inception={"path": "~/i.pt", "sha256": "0"}), r"inception.path begins with ~"),
        (lambda t: t["dataset"].update(root="/a/${seed}"), r"dataset.root contains \$\{, which DVC would replace"),
        (lambda t: t["dataset"].update(splits=["train", "${seed}"]), r"dataset.splits.1 contains \$\{"),
        (lambda t: t["dataset"].update(root=""), r"dataset.root is empty"),
        (lambda t: t["dataset"].update(root="/a\nb"), r"dataset.root has a control character"),
        (
            lambda t: t.update(dataset="folder"),
            r"dataset must be a mapping.*: python -m pipeline configure dataset=",
        ),
        (lambda t: t.update(cluster="gpus"), r"cluster must be a mapping, .* configure cluster=gpus"),
        (
            lambda t: t["cluster"].update(checkpoints="https://host/live"),
            r"cluster: checkpoints must be s3://\.\.\., gs://\.\.\., .*; that can only be read",
        ),
    ],
)
def test_a_wrong_key_or_value_is_named_with_the_nearest(tmp_path, change, message):
    with pytest.raises(ParamsError, match=message) as error:
        read_params(changed(tmp_path, change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    ["!!python/object/apply:os.system ['touch canary']", "seed: 1\nseed: 2\n", "seed: [1", "[]", "a: !!binary |\n  x"],
)
def test_tags_duplicates_and_broken_yaml_are_refused(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=r"params\.yaml"):
        read_params()
    assert not Path("canary").exists()


def test_a_missing_file_says_where_to_stand(tmp_path):
    with pytest.raises(ParamsError, match="run the command from the root"):
        read_params(tmp_path / "params.yaml")


SCALARS = ("1e-4", "1E4", "1e+3", ".5", "5.", "1_000", "010", "0o10", "0x10", "0b11", "yes", "no", "on", "off", "y",
           "true", "True", "~", "null", "", "12:30:45", "2001-01-01", ".inf", "-.Inf", ".nan", "'1'", "+1", "0.1e-2",
           "1.2.3")  # fmt: skip


def leaf(tree, path):
    for part in filter(None, path.split(".")):
        tree = tree[part] if isinstance(tree, dict) else getattr(tree, part)
    return tree


@pytest.mark.parametrize(
    "path", ["generators.edge_connect.learning_rate", "seed", "train.deterministic", "cluster.storage"]
)
def test_a_scalar_means_to_us_what_it_means_to_dvc_or_is_refused(tmp_path, path):
    """A number, a whole number, a truth value and a text, each written in every way that parsers read differently."""
    marked = changed(tmp_path, lambda t: leaf(t, path.rpartition(".")[0]).update({path.rpartition(".")[2]: "MARK"}))
    text, accepted, refused = marked.read_text(), {}, {}
    for scalar in SCALARS:
        marked.write_text(text.replace("MARK", scalar))
        theirs = leaf(load_yaml(str(marked)), path)
        try:
            accepted[scalar] = leaf(read_params(marked), path)
        except ParamsError as error:
            refused[scalar] = str(error)
        else:
            assert repr(accepted[scalar]) in (repr(theirs), f"{theirs!r}.0"), scalar
    assert all(path in message for message in refused.values()), refused
    if path == "seed":
        assert accepted == {"1_000": 1000, "010": 10, "0o10": 8, "0x10": 16, "0b11": 3, "+1": 1}
    if path == "train.deterministic":
        assert accepted == {"true": True, "True": True}
    if path == "cluster.storage":
        assert {"yes", "no", "on", "off", "12:30:45"} <= accepted.keys()
    if path.endswith("learning_rate"):
        assert accepted["1e-4"] == 1e-4


@pytest.mark.parametrize(
    "name", ["x; touch c", "../../x", "$(touch c)", "`touch c`", "a\nb", "-h", "", "a b", "Ä", "."]
)
def test_a_name_that_could_become_a_path_or_a_command_is_refused(tmp_path, name):
    with pytest.raises(ParamsError, match="names are made of a-z, 0-9 and _") as error:
        read_params(changed(tmp_path, lambda t: t["generators"].update({name: {}})))
    assert "\n" not in str(error.value)


def everything():
    """Plain data of the committed parameters with every key, and every generator of the papers."""
    params = read_params(ROOT / "params.yaml")
    masks = {"kind": "files", "files": asdict(MaskFiles(root="/masks"))}
    tree = json.loads(json.dumps(params.to_dict(), default=str))
    tree["generators"] = {name: asdict(card(name).Config()) for name in names()}
    tree["train"] |= {"ema_decay": 0.5, "clip_norm": 1.0}
    tree["train"]["samples"] |= {"crop": 32, "masks": tree["train"]["samples"]["masks"] | masks}
    tree["store"]["cache"] = "/cache"  # the default is in the home folder, which a file must name
    return json.loads(json.dumps(tree))


def numbers(tree, path=()):
    """The path and the value of every number, and of every list of numbers."""
    for key, value in tree.items():
        one = value[0] if isinstance(value, list) and value else value
        if isinstance(value, dict):
            yield from numbers(value, (*path, key))
        elif isinstance(one, int | float) and not isinstance(one, bool):
            yield (*path, key), value


def with_value(tree, path, value):
    first, *rest = path
    return {**tree, first: with_value(tree[first], rest, value) if rest else value}


def test_every_number_out_of_its_range_is_refused_by_the_name_of_its_key(monkeypatch):
    tree = everything()
    cases = list(numbers(tree))
    assert len(cases) > 280

    def refusal(path, value):
        only = {path[1]: tree["generators"][path[1]]} if path[0] == "generators" else {"edge_connect": {}}
        given = with_value({**tree, "generators": only}, path, value)
        monkeypatch.setattr(params_module, "read_tree", lambda _: given)
        with pytest.raises(ParamsError) as error:
            read_params()
        return str(error.value)

    for path, value in cases:
        allowed = range_of(".".join(path), value if not isinstance(value, list) else value[0])
        for number in [math.nan, allowed.low - 1, allowed.high * 4] + ([allowed.low] if allowed.is_open else []):
            number = int(number) if isinstance(value, int) and math.isfinite(number) else number
            given = [number] * len(value) if isinstance(value, list) else number
            message = refusal(path, given)
            assert path[-1] in message, (path, given, message)
            assert "\n" not in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["evaluate"].update(gallery_images=0), r"evaluate\.gallery_images must be in 1\.\..*, got 0"),
        (lambda t: t["evaluate"].update(baselines=[]), r"baselines must include mean_colour"),
        (lambda t: t["evaluate"].update(baselines=["mean_colour"] * 2), r"evaluate\.baselines names a baseline twice"),
        (lambda t: t["evaluate"].update(baselines=["mean_color"]), r"evaluate\.baselines"),
        (
            lambda t: t["evaluate"].update(vgg16={"path": "w", "sha256": "x"}),
            r"evaluate\.vgg16\.sha256 must be",
        ),
        (lambda t: t["evaluate"].update(seconds_per_fill=0), r"evaluate\.seconds_per_fill must be above 0"),
        (lambda t: t["evaluate"]["rows"].update(registered=["csa@champion"]), r"registered has 'csa@champion'; name a"),
        (
            lambda t: t["evaluate"]["rows"].update(external=[{"name": "a/b", "root": "x"}]),
            r"external has the name 'a/b'",
        ),
        (
            lambda t: t["evaluate"]["rows"].update(external=[{"name": "telea", "root": "x"}]),
            r"external names telea, which another row has",
        ),
        (
            lambda t: t["evaluate"]["rows"].update(external=[{"name": "a", "root": "x"}] * 2),
            r"external names a, which another row has",
        ),
        (lambda t: t["evaluate"]["rows"].update(external=[{"name": "a"}]), r"rows\.external\.0\.root is missing"),
        (
            lambda t: t.update(report={"track": "common"}),
            r"unequal numbers of images: deepfill_v2 8,000, edge_connect 11,200, .*; set their steps",
        ),
        (
            lambda t: t["evaluate"].update(inception={"path": "w", "sha256": "x"}),
            r"evaluate\.inception\.sha256 must be",
        ),
        (lambda t: t["train"]["samples"].update(crop=65), r"train\.samples\.crop is 65, more than .* ingest\.size, 64"),
        (lambda t: t["generators"].update(lbp={"lbp_steps": 0, "image_steps": 0}), r"generators\.lbp has no step"),
        (lambda t: t["generators"]["deepfill_v2"].update(steps=0), r"generators\.deepfill_v2\.steps must be in 1"),
        (lambda t: t["cluster"].update(storage=""), r"cluster\.storage is empty"),
        (lambda t: t["dataset"].update(root=""), r"dataset\.root is empty"),
        (lambda t: t["semantics"].update(segmenter="deeplab"), r"semantics\.segmenter: .*'deeplabv3_resnet50'"),
    ],
)
def test_what_would_fail_later_is_refused_at_once(tmp_path, change, message):
    with pytest.raises(ParamsError, match=message) as error:
        read_params(changed(tmp_path, change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["suite"].update(split="valid"), r"suite\.split is 'valid', but photos .* has train, val"),
        (lambda t: t["dataset"].update(splits=["val"]), r"the split of every training is 'train'"),
        (
            lambda t: t["evaluate"].update(alexnet={"path": "a.pth", "sha256": "0" * 64}),
            r"evaluate\.alexnet\.path: a\.pth",
        ),
        (
            lambda t: t["generators"]["edge_connect"].update(features="f.pth"),
            r"edge_connect\.features: f\.pth does not",
        ),
        (
            lambda t: t["semantics"].update(source="segmenter", segmenter_weights="s.pth"),
            r"segmenter_weights: s\.pth does not exist",
        ),
        (
            lambda t: t["suite"].update(masks={"kind": "files", "files": {"root": "/absent"}}),
            r"suite\.masks\.files\.root: /absent does not exist",
        ),
    ],
)
def test_what_a_later_stage_would_miss_stops_the_first_one(tmp_path, monkeypatch, change, message):
    from pipeline.start import check_start

    params = read_params(changed(tmp_path, change))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParamsError, match=message):
        check_start(params)


def test_generators_for_images_of_another_size_are_said_when_images_are_ingested(tmp_path, caplog):
    from pipeline.start import check_start

    of_fixed_size = {"generators": {"context_encoder": {"preset": "demo"}}}
    for change, words in (
        (
            lambda t: t["ingest"].update(size=128),
            "image_size is 64, but its images will have a side of 128 (ingest.size)",
        ),
        (lambda t: t["train"]["samples"].update(crop=32), "a side of 32 (train.samples.crop)"),
    ):
        check_start(read_params(changed(tmp_path, lambda t, change=change: (t.update(of_fixed_size), change(t)))))
        assert words in caplog.text


def test_gpus_that_a_training_would_miss_are_said_when_images_are_ingested(tmp_path, monkeypatch, caplog):
    import torch

    from jobs.cluster.launch import WorkerError, check_gpus
    from pipeline.start import check_start

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    params = read_params(changed(tmp_path, lambda t: t["cluster"].update(use_gpu=True, train_workers=0)))
    monkeypatch.chdir(tmp_path)
    assert torch.cuda.device_count() == 0
    check_start(params)
    assert "cluster.use_gpu is true, but torch finds no GPU on this machine, and training needs 1" in caplog.text
    with pytest.raises(WorkerError, match=r"cluster\.use_gpu is true"):
        check_gpus(params.cluster)


def test_recorded_parameters_are_read_again():
    params = read_params(ROOT / "params.yaml")
    assert params_module.check_tree(json.loads(json.dumps(params.to_dict())), "params.json") == params
