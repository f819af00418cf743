"""The common track takes only trainings with equal masks and budgets."""

from types import SimpleNamespace

import pytest

from jobs.generators import card, names
from jobs.generators.build import build_recipe
from pipeline.budgets import find_unequal_budgets, planned_images
from pipeline.tracks import TrackError, check_trainings, describe_track


@pytest.mark.parametrize("name", names())
def test_the_planned_budget_of_every_generator_is_that_of_its_recipe(name):
    recipe = build_recipe(name, card(name).Config.tiny(), 0)
    assert planned_images(card(name).Config.tiny()) == recipe.steps * recipe.batch_size


def receipt(images, batch_size=16, masks="free_form"):
    train = {"samples": {"masks": {"kind": masks}}}
    return SimpleNamespace(samples_seen=images, config={"batch_size": batch_size}, train=train)


def test_budgets_are_equal_up_to_a_step():
    csa = card("csa").Config
    assert find_unequal_budgets({"csa": csa(steps=1000), "unet": card("unet").Config(steps=62, batch_size=16)}) is None
    unequal = find_unequal_budgets({"csa": csa(steps=1000), "unet": card("unet").Config(steps=50, batch_size=16)})
    assert "csa 1,000, unet 800" in unequal


def test_trainings_are_checked_on_the_common_track_alone():
    receipts = {"a": receipt(1000), "b": receipt(800)}
    with pytest.raises(TrackError, match="a 1,000, b 800; set their steps"):
        check_trainings("common", receipts)
    for track in (None, "paper"):
        check_trainings(track, receipts)
    check_trainings("common", {"a": receipt(1000), "b": receipt(992)})
    with pytest.raises(TrackError, match="a and b were trained with different masks"):
        check_trainings("common", {"a": receipt(1000), "b": receipt(1000, masks="centre")})


def test_what_the_trainings_had_in_common_is_said():
    unequal, equal = {"a": receipt(1000), "b": receipt(800)}, {"a": receipt(1000), "b": receipt(1000)}
    assert describe_track(None, unequal).startswith(
        "The generators have seen unequal numbers of images: a 1,000, b 800."
    )
    assert describe_track(None, equal) == "Each generator has seen 1,000 images."
    assert describe_track("common", equal) == "Common track: equal masks, and 1,000 images seen by each generator."
    assert "schedule of its paper" in describe_track("paper", unequal)
