"""What `python -m pipeline datasets` says."""

import dataclasses
import json

import pytest

from datasets.sources import SOURCES, source_config
from pipeline.__main__ import main
from pipeline.verbs import datasets


def test_the_list_names_all_that_a_user_needs_in_120_columns():
    text = datasets.render(as_json=False)
    assert max(map(len, text.splitlines())) <= 120
    words = " ".join(text.split())
    for name, source in SOURCES.items():
        card = source.card
        assert name in words
        for split, count in card.counts.items():
            assert f"{split} {count:,}" in words
        for said in (card.labels, card.licence, card.layout):
            assert " ".join(said.split()) in words
    assert words.count("redistributed") == len(SOURCES)


@pytest.mark.parametrize("name", SOURCES)
def test_one_card_is_shown_whole(name):
    text = datasets.render(name, as_json=False)
    assert max(map(len, text.splitlines())) <= 120
    words = " ".join(text.split())
    card = SOURCES[name].card
    for said in (card.licence, card.layout, *card.defects, *card.options, *card.options.values()):
        assert " ".join(said.split()) in words
    assert words.endswith(" dataset.root=/path/to/it") != (name == "photos")


def test_json_holds_every_field_and_params_that_work():
    rows = {row["name"]: row for row in json.loads(datasets.render(as_json=True))}
    assert list(rows) == list(SOURCES)
    for name, source in SOURCES.items():
        assert json.loads(datasets.render(name, as_json=True)) == rows[name]
        for field in dataclasses.fields(source.card):
            assert json.dumps(rows[name][field.name]) == json.dumps(getattr(source.card, field.name))
        assert tuple(rows[name]["classes"]) == source.classes
        assert rows[name]["params"].keys() == {"name", "root", *source.card.options}
        source(source_config(**rows[name]["params"]))


def test_the_command_names_the_nearest_data_set(capsys):
    assert main(["datasets", "places"]) == 1
    assert capsys.readouterr().err == (
        "datasets: 'places' is not a data set; did you mean places2?\nsee docs/data.md#choose-a-data-set\n"
    )
    assert main(["datasets", "dtd", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["train"] == 1880
