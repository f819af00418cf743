"""The guard that leaves out updates, read after many steps, as on a GPU."""

import torch

from jobs.recipe.contract import Update
from jobs.training.guard import Failure, Guard

FIRST, SECOND = (Update(networks=(name,), terms=None) for name in ("one", "two"))


def step(guard, first, second):
    """Judge a step of two updates by the norms of their gradients; the terms are as finite as the norms."""
    guard.begin_step()
    for update, norm in ((FIRST, first), (SECOND, second)):
        guard.judge(update, {"l1": torch.tensor(1.0), "gan": torch.tensor(norm)}, torch.tensor(norm))
    guard.end_step()


def test_failures_of_many_steps_are_told_at_once_and_once():
    guard, nan, inf = Guard(torch.device("cpu")), float("nan"), float("inf")
    for first, second in [(1.0, 1.0), (nan, nan), (inf, 1.0), (1.0, nan), (1.0, 1.0), (1.0, nan)]:
        step(guard, first, second)
    assert guard.in_a_row == 1
    longest, failures = guard.read()
    assert longest == 3
    assert failures == [
        Failure(networks=("one",), count=2, cause="gan is inf"),
        Failure(networks=("two",), count=2, cause="gan is nan"),  # not in the step in which the first had failed
    ]
    assert guard.read() == (1, [])
    step(guard, 1.0, 1.0)
    step(guard, 1.0, 1.0)
    assert guard.in_a_row == 0


def test_an_update_that_fails_holds_up_the_later_ones_of_its_step_alone():
    guard = Guard(torch.device("cpu"))
    guard.begin_step()
    marks = []
    for norm in (1.0, float("inf"), 1.0):
        guard.judge(FIRST, {"l1": torch.tensor(0.0)}, torch.tensor(norm))
        marks.append(guard.failed.item())
    assert marks == [0, 1, 1]
    guard.begin_step()
    assert guard.failed == 0


def test_a_gradient_is_named_if_all_terms_are_finite():
    guard = Guard(torch.device("cpu"))
    guard.begin_step()
    guard.judge(FIRST, {"l1": torch.tensor(1.0)}, torch.tensor(float("nan")))
    guard.end_step()
    assert guard.read()[1][0].cause == "a gradient of one, here or elsewhere, is not finite"
