"""The schema that editors use says what the reader of params.yaml says."""

import json
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from datasets.sources import SOURCES
from docs.schema import SCHEMA_PATH, make_schema
from pipeline.meanings import field_descriptions

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def validator():
    found = make_schema()
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


@pytest.fixture
def tree():
    return YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text())


def test_params_name_the_schema_in_their_first_line():
    first = (ROOT / "params.yaml").read_text().splitlines()[0]
    assert first == f"# yaml-language-server: $schema={SCHEMA_PATH}"


def test_every_key_has_a_description():
    found = make_schema()
    objects = {"params.yaml": found, **found["$defs"]}
    keys = {f"{name}.{key}": value for name, node in objects.items() for key, value in node["properties"].items()}
    assert len(keys) > 200
    assert [key for key, value in keys.items() if not value.get("description")] == []


def test_the_committed_parameters_are_valid(validator, tree):
    assert list(validator.iter_errors(json.loads(json.dumps(tree)))) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.update(sed=1),
        lambda t: t.pop("seed"),
        lambda t: t["ingest"].update(size="64"),
        lambda t: t["ingest"].update(rule="stretch"),
        lambda t: t["train"]["samples"]["masks"].update(knd=1),
        lambda t: t["edges"]["edge"].update(sigme=1),
        lambda t: t["generators"].update(edge_conect={}),
        lambda t: t["generators"]["edge_connect"].update(learning_rat=1),
        lambda t: t["generators"]["edge_connect"].update(batch_size=2.5),
    ],
)
def test_a_wrong_key_or_value_is_marked(validator, tree, change):
    change(tree)
    assert list(validator.iter_errors(tree)) != []


@pytest.mark.parametrize("name", SOURCES)
def test_a_data_set_has_its_own_options_and_no_others(validator, tree, name):
    options = {"edition": "standard", "split_list": "celeba", "split_number": 1, "val_share": 0.1}
    for option, value in options.items():
        tree["dataset"] = {"name": name, "root": "/data", option: value}
        is_known = option in SOURCES[name].card.options
        assert (list(validator.iter_errors(tree)) == []) == is_known, option


def test_a_generator_without_settings_may_be_empty(validator, tree):
    tree["generators"].update(csa=None, lbp={})
    assert list(validator.iter_errors(tree)) == []


@dataclass
class Made:
    """Values made for this test.

    first, second: two of a kind,
        described together. third: in the same line.
    *_weight: of one loss.
    any: a line that names no field continues the entry above.
    """

    first: int
    second: int
    third: int
    one_weight: float = 1.0
    two_weight: float = 1.0  # with a comment
    commented: float = 1.0  # Sec. 4

    # Above two of them,
    # in two lines.
    above: int = 0
    below: int = 0

    bare: int = 0


def test_descriptions_come_from_docstrings_and_comments():
    assert field_descriptions(Made) == {
        "first": "two of a kind, described together.",
        "second": "two of a kind, described together.",
        "third": "in the same line.",
        "one_weight": "of one loss. any: a line that names no field continues the entry above.",
        "two_weight": "of one loss. any: a line that names no field continues the entry above.",
        "commented": "Sec. 4",
        "above": "Above two of them, in two lines.",
        "below": "Above two of them, in two lines.",
    }
