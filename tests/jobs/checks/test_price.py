"""The arithmetic of a price, against numbers worked out by hand."""

import pytest

from jobs.checks.footprint import PhaseFootprint
from jobs.checks.price import Range, price_generator, spread
from jobs.checks.probe import KindProbe, PhaseProbe, Probe

PHASES = (
    PhaseProbe(
        name="warm",
        steps=100,
        kinds=(KindProbe(updates=("d",), steps=80, seconds=(1.0, 2.0, 3.0, 4.0, 5.0)),
               KindProbe(updates=("d", "g"), steps=20, seconds=(10.0, 10.0, 11.0))),
        is_warm=True,
    ),
    PhaseProbe(name="joint", steps=50, kinds=(KindProbe(updates=("g",), steps=50, seconds=(6.0,)),)),
)  # fmt: skip
FOOTPRINTS = (
    PhaseFootprint(name="warm", steps=100, gradient_bytes=1_000_000),
    PhaseFootprint(name="joint", steps=50, gradient_bytes=4_000_000),
)


def probed(**changes):
    values = {
        "generator": "made", "device": "H100", "is_gpu": True, "threads": 1, "batch_size": 8, "height": 64, "width": 64,
        "phases": PHASES, "reading_seconds": (), "peak_bytes": 10**9, "needed_bytes": 2 * 10**9,
        "memory_bytes": 10 * 10**9,
    }  # fmt: skip
    return Probe(**{**values, **changes})


def priced(probe, **changes):
    return price_generator(probe, FOOTPRINTS, **{"workers": 4, "workers_per_device": 1, "loader_workers": 0, **changes})


def test_the_middle_half_stands_for_many_values_and_all_for_few():
    assert spread([5.0, 1.0, 2.0, 4.0, 3.0]) == Range(low=2.0, middle=3.0, high=4.0)
    assert spread([9.0, 1.0, 2.0]) == Range(low=1.0, middle=2.0, high=9.0)
    assert spread([7.0]) == Range(low=7.0, middle=7.0, high=7.0)


def test_hours_are_the_sum_over_phases_and_kinds_of_steps():
    found = priced(probed(), price_per_hour=2.0)
    warm, joint = found.phases
    # 80 steps at 3 s (2 to 4), 20 at 10 s (10 to 11); then 50 at 6 s
    assert warm.compute_seconds == Range(low=360.0, middle=440.0, high=540.0)
    assert joint.compute_seconds == Range(low=300.0, middle=300.0, high=300.0)
    assert (warm.measured_steps, warm.is_warm, joint.measured_steps, joint.is_warm) == (8, True, 1, False)
    for range_, factor in ((found.hours, 1), (found.worker_hours, 4), (found.cost, 8)):
        assert (range_.low, range_.middle, range_.high) == pytest.approx(
            (660 * factor / 3600, 740 * factor / 3600, 840 * factor / 3600)
        )


def test_reading_adds_up_in_one_process_and_overlaps_in_loader_workers():
    reads = probed(reading_seconds=(8.0,))
    alone = priced(reads)
    assert alone.hours.middle == pytest.approx((740 + 150 * 8) / 3600)
    two = priced(reads, loader_workers=2)  # 4 s per step: less than 4.4 s of computing, and than 6 s
    assert two.reading_seconds.middle == 4.0
    assert two.hours.middle == pytest.approx(740 / 3600)
    slow = priced(probed(reading_seconds=(10.0,)), loader_workers=2)  # 5 s per step: more than 4.4 s of computing
    assert slow.hours.middle == pytest.approx((500 + 300) / 3600)


def test_gradients_are_exchanged_in_a_ring():
    # 100 x 1 MB and 50 x 4 MB, of which each of 4 workers sends 2 x 3/4: 450 MB at 1 Gbit/s
    assert priced(probed(), gigabits_per_second=1.0).exchange_hours == pytest.approx(3.6 / 3600)
    assert priced(probed(), gigabits_per_second=1.0, workers=1).exchange_hours == 0
    assert priced(probed()).exchange_hours is None


def test_there_is_no_total_where_a_phase_was_not_probed():
    found = priced(probed(phases=(PHASES[0], PhaseProbe(name="joint", steps=50))), price_per_hour=1.0)
    assert found.not_probed == ("joint",)
    assert found.phases[0].hours is not None
    assert found.hours is found.worker_hours is found.cost is None


def test_memory_is_held_against_what_the_device_has():
    def verdict(needed, together):
        found = priced(probed(needed_bytes=needed), workers_per_device=together)
        return found.memory, found.fits

    assert verdict(2 * 10**9, 1) == ("fits: 2 GB of 10 GB", True)
    assert verdict(95 * 10**8, 1) == ("tight: 9.5 GB of 10 GB", True)
    assert verdict(11 * 10**9, 1) == (
        "does not fit: 11 GB of 10 GB; lower batch_size or take more workers", False
    )  # fmt: skip
    assert verdict(3 * 10**9, 4) == (
        "does not fit: 4 workers need 12 GB of 10 GB; RAY_ADDRESS may name a cluster", False
    )  # fmt: skip
