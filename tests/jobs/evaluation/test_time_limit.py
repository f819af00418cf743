"""A fill that takes too long is ended, and the next one works again."""

import os
import time

import numpy as np
import pytest

from files.errors import UserError
from jobs.evaluation.baselines import BASELINES, SLOW, BaselineError
from jobs.evaluation.time_limit import TimeLimit
from tests.jobs.evaluation.metrics.pictures import noise

IMAGE, MASK = noise(32, 32, 3), (noise(32, 32) > 200).astype(np.uint8)


def hang(image, mask):
    time.sleep(600)


def fail(image, mask):
    raise BaselineError("it needs something")


def die(image, mask):
    os._exit(3)


@pytest.fixture
def limit():
    limit = TimeLimit(seconds=30)
    yield limit
    limit.close()


@pytest.mark.parametrize("name", sorted(SLOW))
def test_a_fill_in_time_gives_what_it_gives_without_a_limit(limit, name):
    fill = BASELINES[name].fill
    np.testing.assert_array_equal(limit.fill(fill, IMAGE, MASK), fill(IMAGE, MASK))


def test_a_fill_that_takes_too_long_is_ended_and_the_next_one_works(limit):
    limit.fill(BASELINES["telea"].fill, IMAGE, MASK)
    process = limit._process
    limit._seconds = 0.2
    begin = time.monotonic()
    assert limit.fill(hang, IMAGE, MASK) is None
    assert time.monotonic() - begin < 60
    assert not process.is_alive()
    limit._seconds = 30
    assert limit.fill(BASELINES["telea"].fill, IMAGE, MASK).shape == IMAGE.shape


def test_an_error_of_the_fill_and_the_end_of_its_process_are_raised(limit):
    with pytest.raises(BaselineError, match="it needs something"):
        limit.fill(fail, IMAGE, MASK)
    with pytest.raises(UserError, match="the process of a baseline ended with exit code 3"):
        limit.fill(die, IMAGE, MASK)
