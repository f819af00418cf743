"""Every suite of conf/suite can be used with the data set that it names, and is refused for other images."""

import dataclasses
from pathlib import Path

import pytest

from datasets.ingest import IngestConfig
from datasets.sources import SOURCES, source_config
from jobs.evaluation.settings import Weights
from pipeline.params import read_params
from pipeline.suite_files import SuiteFileError, check_suite, list_suites, read_suite

ROOT = Path(__file__).resolve().parent.parent.parent
PARAMS = read_params(ROOT / "params.yaml")


def params_of(suite):
    """The committed parameters with the images of a suite."""
    root = None if suite.dataset == "photos" else "/data"
    dataset = source_config(name=suite.dataset, root=root, **suite.options)
    return dataclasses.replace(
        PARAMS, dataset=dataset, ingest=dataclasses.replace(PARAMS.ingest, size=suite.size, rule=suite.rule)
    )


@pytest.mark.parametrize("name", list_suites())
def test_every_suite_fits_its_data_set_and_no_other_images(name):
    suite = read_suite(name)
    card = SOURCES[suite.dataset].card
    assert suite.split in card.splits
    params = params_of(suite)
    check_suite(name, suite, params)
    other = IngestConfig(size=suite.size + 1, rule="cut")
    with pytest.raises(SuiteFileError, match=rf"ingest\.size is {suite.size + 1}, not {suite.size}; ingest\.rule"):
        check_suite(name, suite, dataclasses.replace(params, ingest=other))


def test_each_published_list_has_ratio_bins_centre_and_the_three_sizes_of_lama():
    lists = {name.rpartition("_")[0] for name in list_suites()} - {"", "photos"}
    assert {"places2_36500", "places2_10000", "celeba_hq_lama", "celeba_hq_first28000", "paris_streetview"} < lists
    assert {f"{one}_{kind}" for one in lists for kind in ("ratios", "centre", "thin", "medium", "thick")} < {
        *list_suites()
    }


def test_the_suite_photos_is_that_of_the_demo():
    suite = read_suite("photos")
    assert (suite.split, suite.masks, suite.seed) == (PARAMS.suite.split, PARAMS.suite.masks, PARAMS.seed)
    check_suite("photos", suite, PARAMS)


def test_other_feature_weights_than_those_of_a_suite_are_refused():
    suite = read_suite("paris_streetview_ratios")
    weights = {"right": "6726825d" + "0" * 56, "wrong": "0" * 64}
    for name, sha256 in weights.items():
        evaluate = dataclasses.replace(PARAMS.evaluate, inception=Weights("inception.pth", sha256))
        params = dataclasses.replace(params_of(suite), evaluate=evaluate)
        if name == "right":
            check_suite("s", suite, params)
        else:
            with pytest.raises(SuiteFileError, match=r"evaluate\.inception has SHA-256 0+, not 6726825d"):
                check_suite("s", suite, params)


def test_a_suite_that_does_not_exist_is_named_with_the_nearest():
    with pytest.raises(SuiteFileError, match=r"conf/suite has no photo\.yaml; did you mean photos\?"):
        read_suite("photo")
