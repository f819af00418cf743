"""Choose how many processes train a generator: a number that divides its batch. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import replace

from jobs.cluster.settings import ClusterConfig


def share_batch(config: ClusterConfig, generator: str, shares: int) -> ClusterConfig:
    """Return the settings for the training of one generator, with as many processes as divide its batch.

    generator: its name, for `generator_workers`.
    shares: images per step, divided by the micro-batches of each process.
    """
    return replace(config, train_workers=divide(config.range_of(generator), shares))


def divide(asked: tuple[int, int], shares: int) -> tuple[int, int]:
    """Return the fewest and the most processes that train with a batch.

    asked: fewest and most that are asked for; (0, 0) is this process.
    shares: see `share_batch`.
    Returns as most the largest divisor of the shares that is at most what is asked for. The fewest are at most that.
    """
    fewest, most = asked
    if most == 0:
        return asked
    largest = max(number for number in range(1, min(most, shares) + 1) if shares % number == 0)
    return min(fewest, largest), largest


def describe_fewer(config: ClusterConfig, generator: str, shares: int) -> str:
    """Return that fewer processes train a generator than asked for, as text; "" if as many do.

    config: what is asked for, for all generators.
    shares: see `share_batch`.
    """
    asked, most = config.range_of(generator)[1], share_batch(config, generator, shares).worker_range[1]
    if asked == most:
        return ""
    processes = "1 process" if most == 1 else f"{most} processes"
    images = "1 image" if shares == 1 else f"{shares} equal shares"
    return f"trained by {processes} instead of {asked}, since its batch is divided into at most {images}"
