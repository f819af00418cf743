"""The steps that read a record are those of the stream itself, for every record, batch and length."""

import pytest

from datasets.stream.consumption import reading_steps
from datasets.stream.plan import Plan, PlanConfig, positions

SIZES = (7, 10, 1, 3, 12)


@pytest.mark.parametrize("window", [1, 2, 16])
@pytest.mark.parametrize("batch_size", [1, 4, 33, 50])
@pytest.mark.parametrize("steps", [0, 1, 9, 40])
def test_reading_steps_are_those_at_which_the_stream_has_the_record(window, batch_size, steps):
    plan = Plan(SIZES, 5, PlanConfig(window_shards=window))
    found = {record: [] for record in range(plan.num_records)}
    for step in range(steps):
        for position in positions(step, batch_size):
            epoch, record = plan.locate(position)
            assert plan.position_of(epoch, record) == position
            found[record].append(step + 1)
    for record, expected in found.items():
        assert reading_steps(plan, record, batch_size, steps) == expected


def test_a_record_that_the_plan_has_not_is_refused():
    with pytest.raises(ValueError, match="the plan has the records 0 to 32, not 33"):
        reading_steps(Plan(SIZES, 5), 33, 4, 10)
