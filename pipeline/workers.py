"""Choose the workers of one training, whose number divides its batch."""

from __future__ import annotations

import logging

from datasets.stream.plan import sharing_problem
from jobs.checks.footprint import Footprint
from jobs.cluster.settings import ClusterConfig
from jobs.cluster.sharing import describe_fewer, share_batch
from pipeline.params import Params, ParamsError

log = logging.getLogger(__name__)


def choose_workers(params: Params, counts: Footprint) -> ClusterConfig:
    """Return the settings of the workers of a training. Fewer than asked for are logged.

    counts: of the generator.
    Raises ParamsError if no number of workers can compute the batch in `train.accumulate` equal parts each.
    """
    generator, accumulate = counts.generator, params.train.accumulate
    if problem := sharing_problem(counts.batch_size, 1, accumulate):
        raise ParamsError(f"{problem}; change generators.{generator}.batch_size or train.accumulate")
    shares = counts.batch_size // accumulate
    if fewer := describe_fewer(params.cluster, generator, shares):
        log.warning("%s is %s", generator, fewer)
    return share_batch(params.cluster, generator, shares)
