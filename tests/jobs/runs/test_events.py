import logging
import threading
import time

import numpy as np
import pytest
import torch

from jobs.runs.events import (
    EventLog,
    WarningsOf,
    device_hours,
    losses_by_step,
    read_events,
    read_log,
    read_segments,
    useful_step_ratio,
)


def test_events_are_read_back_in_order_and_from_any_offset(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    for step in (10, 20, 30):
        log.log(step, {"a/l1": step / 7}, images_per_second=5.0)
    events = list(read_events(tmp_path / "events.jsonl"))
    assert [event.step for event, _ in events] == [10, 20, 30]
    assert events[0][0].losses == {"a/l1": 10 / 7}
    assert [event.step for event, _ in read_events(tmp_path / "events.jsonl", offset=events[0][1])] == [20, 30]


def test_half_a_line_of_a_killed_writer_is_dropped(tmp_path):
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.log(10, {"a/l1": 1.0})
    log.close()
    with path.open("a") as file:
        file.write('{"step": 20, "los')
    assert [event.step for event, _ in read_events(path)] == [10]
    log = EventLog(path)
    log.log(20, {"a/l1": 2.0})
    log.log(10, {"a/l1": 3.0})  # repeated after a restart
    assert losses_by_step(path) == {10: {"a/l1": 3.0}, 20: {"a/l1": 2.0}}


def test_warnings_of_any_thread_stand_between_the_events(tmp_path):
    path, logger = tmp_path / "events.jsonl", logging.getLogger("jobs.runs.checkpoints")
    log = EventLog(path)
    logger.warning("before")
    warnings = WarningsOf(log, ["jobs"])
    log.log(1, {})
    threads = [threading.Thread(target=logger.warning, args=("%s is damaged", number)) for number in range(20)]
    for thread in threads:
        thread.start()
        logger.info("nothing to say")
    for thread in threads:
        thread.join()
    log.log(2, {})
    warnings.close()
    logger.warning("after")
    first, *texts, last = [entry for entry, _ in read_log(path)]
    assert (first.step, last.step) == (1, 2)
    assert sorted(texts) == sorted(f"{number} is damaged" for number in range(20))
    assert [event.step for event, _ in read_events(path)] == [1, 2]


def write_segment(path, from_step, steps, **about):
    log = EventLog(path)
    log.segment(from_step=from_step, **{"world_size": 1, "nodes": ["here"], "devices": ["cpu"], **about})
    for step in steps:
        log.log(step, {"a/l1": float(step)})
    log.close()


def test_segments_say_what_ran_where_and_what_was_run_twice(tmp_path):
    path = tmp_path / "events.jsonl"
    assert read_segments(path) == []
    assert useful_step_ratio([]) == 1.0
    write_segment(path, 0, (2, 4, 6))
    write_segment(path, 3, (), world_size=2, nodes=["one", "two"], devices=["NVIDIA H100", "NVIDIA H100"])
    write_segment(path, 3, (4, 6, 8))
    write_segment(path, 9, (10,))  # a signal caused a checkpoint after step 9, which was not logged
    ran = read_segments(path)
    assert [(segment.from_step, segment.to_step) for segment in ran] == [(0, 6), (3, 3), (3, 9), (9, 10)]
    assert (ran[1].world_size, ran[1].nodes, ran[1].devices) == (2, ("one", "two"), ("NVIDIA H100",) * 2)
    assert useful_step_ratio(ran) == 10 / (6 + 0 + 6 + 1)
    assert [event.step for event, _ in read_events(path)] == [2, 4, 6, 4, 6, 8, 10]
    assert list(losses_by_step(path)) == [2, 4, 6, 8, 10]


def test_seconds_and_hours_are_those_that_passed_whatever_the_clock_says(tmp_path, monkeypatch):
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.segment(from_step=0, world_size=3, nodes=["here"], devices=["cuda:0", "cuda:1", "cpu"])
    time.sleep(0.05)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    log.log(1, {})
    (segment,) = read_segments(path)
    assert 0.05 <= segment.seconds < 5
    assert segment.started > 1e9
    assert device_hours([segment]) == {"gpu_hours": 2 * segment.seconds / 3600, "cpu_hours": segment.seconds / 3600}


def test_events_hold_the_load_of_the_process_that_wrote_them(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    ballast = np.ones(2**27, np.uint8)
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    log.log(1, {})
    ((event, _),) = read_events(tmp_path / "events.jsonl")
    assert event.system["resident_bytes"] > ballast.nbytes
    assert event.system["cpu_percent"] > 1
    assert event.time > 1e9


@pytest.mark.gpu
def test_events_hold_the_peak_of_the_gpus_memory(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    torch.ones(2**26, dtype=torch.uint8, device="cuda")
    log.log(1, {})
    ((event, _),) = read_events(tmp_path / "events.jsonl")
    assert event.system["gpu_peak_bytes"] >= 2**26
    assert 0 <= event.system.get("gpu_utilization_percent", 0) <= 100
