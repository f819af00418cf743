"""Choose for how many training processes a generator is planned."""

from __future__ import annotations

from jobs.checks.footprint import Footprint
from jobs.cluster.sharing import share_batch
from pipeline.params import Params


def workers_of(params: Params, footprint: Footprint, workers: int | None) -> int:
    """Return the number of training processes of a generator.

    workers: the number to plan for, whether or not it divides the batch; None takes the number that would train.
    """
    if workers is not None:
        return workers
    shares = max(footprint.batch_size // params.train.accumulate, 1)
    return share_batch(params.cluster, footprint.generator, shares).max_processes
