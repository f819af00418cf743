import torch
from PIL import Image

from jobs.events import EventLog, losses_by_step, read_events


def test_events_are_read_back_in_order_and_from_any_offset(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    for step in (10, 20, 30):
        log.log(step, {"a/l1": step / 7}, images_per_second=5.0)
    found = list(read_events(tmp_path / "events.jsonl"))
    assert [event.step for event, _ in found] == [10, 20, 30]
    assert found[0][0].losses == {"a/l1": 10 / 7}
    assert [event.step for event, _ in read_events(tmp_path / "events.jsonl", offset=found[0][1])] == [20, 30]


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
    log.log(10, {"a/l1": 3.0})  # run again after a restart
    assert losses_by_step(path) == {10: {"a/l1": 3.0}, 20: {"a/l1": 2.0}}


def test_pictures_lie_beside_the_log(tmp_path):
    EventLog(tmp_path / "events.jsonl").image(5, torch.ones(3, 4, 6))
    with Image.open(tmp_path / "samples" / "step-00000005.png") as picture:
        assert picture.size == (6, 4)
        assert picture.getpixel((0, 0)) == (255, 255, 255)
