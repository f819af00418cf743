"""`configure` changes params.yaml by words: what is named, after a check, with comments, and nothing else."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import pytest
from dvc.config import Config
from dvc.repo import Repo
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import load_yaml
from ruamel.yaml import YAML

from datasets.sources import SOURCES
from files.errors import UserError
from jobs.generators import card, names
from masks.config import Kind
from pipeline.__main__ import main
from pipeline.configuring.comments import read_user_comments
from pipeline.configuring.presets import GROUPS, preset_names, read_preset
from pipeline.configuring.rendering import render
from pipeline.configuring.values import parse_value
from pipeline.params import read_params
from pipeline.verbs import configure

ROOT = Path(__file__).resolve().parents[3]
DEMO = ("dataset=photos", "scale=demo", "cluster=laptop", "masks=free_form",
        "generators=deepfill_v2,edge_connect,unet")  # fmt: skip


@pytest.fixture
def params(tmp_path, monkeypatch):
    """A copy of the committed params.yaml, in the working folder."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml"))


def read(path):
    return YAML(typ="safe", pure=True).load(path.read_text())


def leaves(tree, path=""):
    """Dotted key -> value of all single values."""
    found = {}
    for name, value in tree.items():
        found |= leaves(value, f"{path}{name}.") if isinstance(value, dict) else {path + name: value}
    return found


def changes(path, *words):
    """The keys whose values the words change, with the new ones."""
    before = leaves(read(path))
    configure.run(words, path)
    after = leaves(read(path))
    read_params(path)
    return {key: after.get(key) for key in before | after if before.get(key, "no key") != after.get(key, "no key")}


def test_the_words_of_the_demo_write_the_committed_file(params):
    """From a file in which every group was chosen otherwise."""
    committed = params.read_bytes()
    configure.run(["dataset=dtd", "dataset.root=/d", "scale=paper", "cluster=gpus", "masks=thick", "generators=all"])
    assert params.read_bytes() != committed
    configure.run(DEMO)
    assert params.read_bytes() == committed


@pytest.mark.parametrize(
    "words",
    [
        ["scale=paper"],
        ["dataset=places2", "dataset.root=/places", "scale=paper", "cluster=gpus"],
        ["masks=irregular", "suite.masks.border=25", "train.samples.masks.kind=thick"],
        ["masks=files", "masks.files.root=/m.zip", "train.samples.masks.files.hole=black"],
        ["edges.fine.sigma=1.0", "train.edges=fine"],
        ["dataset=ade20k", "dataset.root=/a", "generators=sge_net", "generators.sge_net.num_classes=150"],
        ["generators=all", "scale=paper"],
        ["generators=all", "scale=small"],
        ["generators=all", "scale=small", "ingest.size=64"],
        *([f"dataset={name}", "dataset.root=/pictures"] for name in SOURCES if name != "photos"),
        *([f"masks={kind}"] for kind in get_args(Kind) if kind != "files"),
    ],
)  # fmt: skip
def test_every_preset_gives_valid_parameters(params, words):
    configure.run(words)
    chosen = read_params(params)
    if "scale=paper" in words:
        assert chosen.generators["edge_connect"] == card("edge_connect").Config()
    if "scale=small" in words:
        assert chosen.generators["edge_connect"] == card("edge_connect").Config.small()
        assert chosen.generators["context_encoder"].image_size == chosen.ingest.size


@pytest.mark.parametrize("variables", [(), ("PICTURES=/my pictures",)])
def test_the_words_of_make_showcase_are_valid(params, variables):
    printed = subprocess.run(
        ["make", "-n", "-C", str(ROOT), "showcase", *variables], capture_output=True, text=True, check=True
    ).stdout
    (command,) = (line for line in printed.splitlines() if "pipeline configure" in line)
    configure.run(shlex.split(command.partition(" configure ")[2]))
    chosen = read_params(params)
    assert chosen.generators["unet"] == card("unet").Config.small()
    assert chosen.dataset.root == ("/my pictures" if variables else None)


def test_there_is_a_preset_for_every_data_set_and_kind_of_masks():
    assert preset_names("dataset") == sorted(SOURCES)
    assert preset_names("masks") == sorted(get_args(Kind))
    for name, source in SOURCES.items():
        preset = read_preset("dataset", name)
        assert preset.keys() - {"splits", "watch"} == {"name", "root", *source.card.options}
        assert set(preset.get("splits", ())) <= set(source.card.splits)


def test_a_word_changes_only_what_it_names(params):
    params.write_text(params.read_text().replace("inpaint_steps: 400", "inpaint_steps: 700").replace(": runs", ": /r"))
    assert changes(params, "train.log_steps=50") == {"train.log_steps": 50}
    preset = read_preset("cluster", "gpus")
    assert preset.pop("num_workers") == read(params)["cluster"]["num_workers"]  # the same, and so no change
    assert changes(params, "cluster=gpus") == {f"cluster.{key}": value for key, value in preset.items()}
    assert changes(params, "cluster.train_workers=4,16") == {"cluster.train_workers": [4, 16]}
    assert changes(params, "cluster.num_workers=0") == {"cluster.num_workers": 0}  # beside "auto"
    assert changes(params, "cluster.num_workers=auto") == {"cluster.num_workers": "auto"}
    (workers,) = changes(params, "cluster.generator_workers.unet=1,4").values()
    assert workers == [1, 4]
    assert changes(params, "suite.masks=thin") == {"suite.masks.kind": "thin"}
    assert changes(params, "dataset=folder", "dataset.root=/p", "dataset.val_share=0.3").keys() == {
        "dataset.name", "dataset.root", "dataset.watch", "dataset.splits", "dataset.val_share"
    }  # fmt: skip
    assert changes(params, "dataset.root=/q") == {"dataset.root": "/q", "dataset.watch": "/q"}
    assert changes(params, "dataset.root=/p", "dataset.watch=/v.txt").keys() == {"dataset.root", "dataset.watch"}
    assert changes(params, "dataset=folder", "masks=free_form") == {
        "dataset.val_share": 0.1,
        "suite.masks.kind": "free_form",
    }
    assert read(params)["generators"]["edge_connect"]["inpaint_steps"] == 700
    assert read(params)["cluster"]["storage"] == "/r"


def test_generators_are_chosen_without_a_change_of_those_that_stay(params):
    configure.run(["generators.edge_connect.inpaint_steps=41"])
    answer = configure.run(["generators=partial_conv,edge_connect"])
    chosen = read_params(params).generators
    assert list(chosen) == ["partial_conv", "edge_connect"]
    assert chosen["partial_conv"] == card("partial_conv").Config.demo()
    assert chosen["edge_connect"].inpaint_steps == 41
    assert "partial_conv at demo scale" in answer
    configure.run(["generators=all"])
    chosen = read_params(params).generators
    assert tuple(chosen) == names()
    assert {name: config for name, config in chosen.items() if name != "edge_connect"} == {
        name: card(name).Config.demo() for name in names() if name != "edge_connect"
    }
    configure.run(["generators=edge_connect,csa", "scale=paper"])
    assert read_params(params).generators == {name: card(name).Config() for name in ("edge_connect", "csa")}
    configure.run(["generators=edge_connect,csa,lbp"])  # beside generators of the paper's scale
    assert read_params(params).generators["lbp"] == card("lbp").Config.demo()


def test_a_generator_with_a_fixed_size_follows_the_size_of_the_images(params):
    configure.run(["generators=context_encoder"])
    assert changes(params, "ingest.size=128") == {"ingest.size": 128, "generators.context_encoder.image_size": 128}
    params.write_text(params.read_text().replace("image_size: 128", "image_size: 64"))
    assert changes(params, "ingest.size=256") == {"ingest.size": 256}
    assert (
        changes(params, "generators=context_encoder,shift_net", "scale=paper")["generators.context_encoder.steps"]
        == 116500
    )
    assert read_params(params).generators["context_encoder"].image_size == 256


NAMES = (
    *("Photos (2019)", "Köln", "e\u0301", "a, b", "[x]", "{y: 1}", "it's", 'qu"ote', "100%41", "$HOME", "a#b", "a #b"),
    *("-lead", " blank ", "a: b", "!x", "&x", "*x", "?x", "@x", "`x`", "|", ">", "null", "true", "1e3", "0x1F", "=x="),
    *("back\\slash", "\xa0", "\u202f", "\ufeff", "\ufffe", "\U0001f600", "a\u200db", "~x", f"{'a' * 200} {'b' * 50}"),
)


def test_a_text_means_the_same_to_both_readers(params):
    """DVC's `-S` writes the file again and must not change it either."""
    for name in NAMES:
        for text in (f"/data/{name}", f"/{name}/x", f"x{name}", name.lstrip("~")):
            tree = {"dataset": {"name": "folder", "root": parse_value(str, text, "dataset.watch"), "val_share": 0.1}}
            params.write_text(render(tree, read_user_comments("seed: 1")))
            assert read(params) == load_yaml(str(params)) == tree
            assert tree["dataset"]["root"] == text
            apply_overrides(params, ["dataset.val_share=0.2"])
            assert read(params)["dataset"] == tree["dataset"] | {"val_share": 0.2}


def test_a_folder_of_any_name_is_read_by_the_stage_and_watched_by_dvc(params):
    shutil.copy(ROOT / "dvc.yaml", params.parent)
    Repo.init(no_scm=True).close()
    for name in ("Photos (2019)", "Köln, a #b [x]", '-it\'s "1" $HOME 100%41'):
        configure.run(["dataset=folder", f"dataset.root={name}"])
        found = read_params(params).dataset
        assert found.root == found.watch == str(params.parent / name)
        with Repo() as repo:
            assert found.root in [dependency.fs_path for dependency in repo.stage.load_one(name="ingest").deps]


def test_a_path_is_written_in_full(params, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/a b")
    configure.run(["dataset=folder", "dataset.root=~/pics", "dataset.watch=requirements.lock", "store.cache=~/c",
                   "masks=files", "masks.files.root=m.zip", "cluster.storage=~/r",
                   "generators.edge_connect.features=~/vgg.pt"])  # fmt: skip
    found = read_params(params)
    assert (found.dataset.root, found.dataset.watch) == ("/home/a b/pics", "requirements.lock")
    assert found.suite.masks.files.root == found.train.samples.masks.files.root == str(tmp_path / "m.zip")
    assert (found.cluster.storage, found.store.cache) == ("/home/a b/r", "/home/a b/c")
    assert found.generators["edge_connect"].features == "/home/a b/vgg.pt"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("dataset=fodler", "'fodler' is not a preset; did you mean folder?"),
        ("scale=papre", "did you mean paper?"),
        ("suite.masks=thik", "did you mean thick?"),
        ("datset=folder", "datset is not a key; did you mean dataset?"),
        ("mask=thick", "mask is not a key; did you mean masks?"),
        ("ingest.sise=3", "ingest.sise is not a key; did you mean size?"),
        ("dataset.edition=standard", "dataset.edition is not a key; there are name, root"),
        ("train.samples.masks.knd=x", "did you mean kind?"),
        ("masks.knd=x", "did you mean kind?"),
        ("edges.fine.sigme=1", "did you mean sigma?"),
        ("generators=edge_conect", "'edge_conect' is not a generator; did you mean edge_connect?"),
        ("generators.edge_conect.steps=3", "did you mean edge_connect?"),
        ("generators.edge_connect.inpaint_step=3", "did you mean inpaint_steps?"),
        ("generators.csa.width=3", "generators.csa is not chosen; choose it with: generators=deepfill_v2,"),
        ("generators=", "'' is not a generator"),
        ("ingest=png", "ingest is a block; set one of its keys: size, rule"),
        ("seed.x=1", "seed is a single value"),
        ("seed", "'seed' is not key=value"),
        ("seed=1.5", "params.yaml: seed: input should be a valid integer"),
        ("seed=[1", "is not YAML"),
        ("seed=", "seed: input should be"),
        ("ingest.rule=stretch", "'crop', 'squash'"),
        ("train.deterministic=yes", "train.deterministic: input should be a valid boolean"),
        ("train.edges=fine", "which is no column of edges"),
        ("dataset=folder", "dataset.root is not set"),
        ("dataset.root=", "dataset.root is empty"),
        ("dataset.root=/a/${seed}", "which DVC would replace"),
        ("dataset.root=/a/\udcff", "is not UTF-8"),
        ("dataset.root=~nobody_of_this_name/x", "home folder"),
        ("masks=files", "masks.files.root is not set"),
    ],
)  # fmt: skip
def test_a_word_that_is_not_understood_is_named_and_changes_nothing(params, word, message, capsys):
    before = params.read_bytes()
    assert main(["configure", "train.log_steps=7", word]) == 1
    line, _ = capsys.readouterr().err.splitlines()
    assert message in line
    assert params.read_bytes() == before
    assert list(params.parent.iterdir()) == [params]


def test_a_key_is_given_once(params):
    with pytest.raises(UserError, match=r"suite.masks.border is given twice"):
        configure.run(["masks.border=1", "suite.masks.border=2"])


def test_every_key_is_explained_and_comments_of_the_user_stay(params):
    configure.run(["generators=all"])
    text = params.read_text()
    for key in leaves(read(params)):
        block, _, name = key.rpartition(".")
        below = text.partition(f"\n{'  ' * block.count('.')}{block.rpartition('.')[2]}:\n")[2]
        comments = re.match(r"( *#: .*\n)+", below)[0] if block else text
        assert re.search(rf"^ *#: - {name}: \S" if block else rf"^{name}: .*  #: \w", comments, re.MULTILINE), key
    mine = {
        "  size: 64": "  # for the poster\n  size: 64  # not 128",
        "  - telea": "  - telea  # quick",
        "\nseed:": "\n# mine\nseed:",
    }
    for line, commented in mine.items():
        text = text.replace(line, commented, 1)
    params.write_text(text + "# the end")
    configure.run(["ingest.format=jpeg", "dataset=folder", "dataset.root=/a b # c"])
    apply_overrides(params, ["train.log_steps=7", "ingest.records_per_shard=9"])
    configure.run(["train.log_steps=8"])
    text = params.read_text()
    for comment in ("  # for the poster\n  size: 64  # not 128\n", "# quick", "# mine\nseed:", "\n# the end\n"):
        assert text.count(comment) == 1
    configure.run(["generators=edge_connect"])
    configure.run(["generators=all", "scale=demo"])
    assert all(len(line) <= 120 for line in params.read_text().splitlines())


def test_dvc_composes_nothing():
    """Else each `dvc exp run` would write params.yaml anew, and lose the job."""
    assert not Config(str(ROOT / ".dvc"))["hydra"]["enabled"]


def test_what_dvc_spoils_is_said_and_mended(params):
    """`-S dataset=folder` puts a word in the place of the block."""
    apply_overrides(params, ["dataset=folder", "cluster=gpus"])
    with pytest.raises(UserError, match="configure dataset=folder"):
        read_params(params)
    configure.run(["dataset=folder", "dataset.root=/p", "cluster=gpus"])
    assert (read_params(params).dataset.root, read_params(params).cluster.loader_workers) == ("/p", 4)


def test_without_words_the_presets_are_listed(params, capsys):
    before = params.read_bytes()
    assert main(["configure"]) == 0
    listed = capsys.readouterr().out
    assert all(f"{group}={name}" in listed for group in GROUPS for name in preset_names(group))
    assert params.read_bytes() == before


def test_the_answer_lists_old_and_new_values(params):
    answer = configure.run(["dataset=folder", "dataset.root=/no such folder", "train.log_steps=50", "generators=csa"])
    for line in (r"dataset.name +photos -> folder", r"train.log_steps +20 -> 50", r"generators.csa +- -> \d+ values",
                 r"generators.edge_connect +21 values -> -", "note: dataset.root is /no such folder, which is not on",
                 "next: dvc exp run"):  # fmt: skip
        assert re.search(line, answer)
    assert "no values changed" in configure.run(["train.log_steps=50"])
