"""A record tells on what it was made, and a card what cannot repeat on a GPU."""

import numpy
import pytest

from jobs.generators import names
from pipeline.lineage.card import describe_gpu
from pipeline.lineage.environments import describe_differences, describe_environment


def test_versions_processor_and_variables_are_recorded_and_differences_named(monkeypatch):
    monkeypatch.delenv("MKL_CBWR", raising=False)
    recorded = describe_environment()
    assert recorded["package numpy"] == numpy.__version__
    assert {"python", "processor", "instruction sets", "package torch"} <= recorded.keys()
    assert describe_differences(recorded, recorded) == ""
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    present = describe_environment() | {"package numpy": "1.0"}
    assert describe_differences(recorded, present) == (
        f"package numpy was {numpy.__version__}, is 1.0; variable MKL_CBWR was not recorded, is AVX2"
    )


@pytest.mark.parametrize("generator", names())
def test_the_card_of_every_generator_says_what_may_vary_on_a_gpu(generator):
    assert "onvolutions" in describe_gpu(generator) or "gradient" in describe_gpu(generator)
