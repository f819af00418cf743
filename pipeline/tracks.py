"""The two tracks of a comparison: equal masks and budgets for all generators, or each paper's own."""

from __future__ import annotations

from collections.abc import Mapping

from files.errors import UserError
from jobs.report.settings import Track
from jobs.runs.receipt import Receipt
from pipeline.budgets import are_equal, list_images


class TrackError(UserError):
    """Trainings do not meet the rules of the declared track; the message names them."""


def check_trainings(track: Track | None, receipts: Mapping[str, Receipt]) -> None:
    """Raise TrackError unless the trainings meet the rules of the track.

    receipts: generator -> receipt.
    """
    if track != "common":
        return
    images = {name: receipt.samples_seen for name, receipt in receipts.items()}
    if not are_equal(images.values(), max(map(_batch_size, receipts.values()))):
        raise TrackError(
            "report.track is common, but the generators have seen unequal numbers of images: "
            f"{list_images(images)}; set their steps, and run: dvc repro"
        )
    (first, masks), *others = ((name, receipt.train["samples"]["masks"]) for name, receipt in receipts.items())
    for other, its in others:
        if its != masks:
            raise TrackError(
                f"report.track is common, but {first} and {other} were trained with different masks; run: dvc repro"
            )


def _batch_size(receipt: Receipt) -> int:
    return receipt.train.get("global_batch") or receipt.config["batch_size"]


def describe_track(track: Track | None, receipts: Mapping[str, Receipt]) -> str:
    """Return a sentence on what the generators had in common."""
    images = {name: receipt.samples_seen for name, receipt in receipts.items()}
    if track == "common":
        return f"Common track: equal masks, and {next(iter(images.values())):,} images seen by each generator."
    if track == "paper":
        return f"Paper track: each generator has the schedule of its paper. Images seen: {list_images(images)}."
    if len(set(images.values())) == 1:
        return f"Each generator has seen {next(iter(images.values())):,} images."
    return (
        f"The generators have seen unequal numbers of images: {list_images(images)}. A difference between two of them "
        "need not come from the methods."
    )
