"""Prove the order of reading, price a training, or check a configuration before anything trains."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

from pipeline.params import Params, ParamsError, check_listed
from pipeline.planning import dry_run, plan, price

VERB = {
    "help": "prove that every record is read once by any number of workers, and count bytes, hours and cost of a run",
    "example": "plan --probe --workers 16 --price-per-hour 2.5",
    "arguments": {
        "--records": {"type": "int", "help": "plan for this number of records instead of the shards that are here"},
        "--shards": {"type": "int", "help": "with --records: number of shards (default: as ingest makes them)"},
        "--workers": {"type": "int", "help": "training processes (default: cluster.train_workers)"},
        "--batch": {"type": "int", "help": "with --records: images per step, over all workers"},
        "--images-per-second": {
            "type": "float",
            "default": 100.0,
            "help": "the speed for which MB/s are stated (default: 100)",
        },
        "--generators": {
            "help": "only these of params.yaml, with commas between (default: all)",
            "completes": "generators",
        },
        "--probe": {"action": "store_true", "help": "take a few steps of each generator here and price its run"},
        "--seconds": {"type": "float", "help": "with --probe: time for each generator (default: 20)"},
        "--gigabits-per-second": {
            "type": "float",
            "help": "with --probe: bandwidth of each worker, to exchange gradients",
        },
        "--price-per-hour": {"type": "float", "help": "with --probe: of one worker, in any currency"},
        "--dry-run": {
            "action": "store_true",
            "help": "check on this machine alone that this number of workers can train",
        },
        "--json": {"action": "store_true", "help": "print JSON"},
    },
}

_PROBE_OPTIONS = ("seconds", "gigabits_per_second", "price_per_hour")


def main(params: Params, arguments: Namespace) -> int:
    """Print the plan, with --probe its price, with --dry-run the checks. Returns 1 if the run would fail or not fit."""
    params = select_generators(params, arguments.generators)
    given = [name for name in _PROBE_OPTIONS if getattr(arguments, name) is not None]
    if given and not arguments.probe:
        raise ParamsError(f"--{given[0].replace('_', '-')} goes with --probe")
    if arguments.dry_run:
        return _dry_run(params, arguments)
    planned = plan.run(
        params,
        records=arguments.records,
        shards=arguments.shards,
        workers=arguments.workers,
        batch=arguments.batch,
        images_per_second=arguments.images_per_second,
    )
    fails = any(reading.problem for reading in planned.readings)
    if not arguments.probe:
        print(plan.render(planned, as_json=arguments.json))
        return int(fails)
    priced = price.run(
        params,
        workers=arguments.workers,
        use_shards=arguments.records is None,
        **{name: getattr(arguments, name) for name in given},
    )
    print(price.render(planned, priced, as_json=arguments.json))
    return int(fails or not priced.is_good)


def select_generators(params: Params, names: str | None) -> Params:
    """Return the parameters with some of their generators alone.

    names: short names with commas between; None keeps all.
    Raises ParamsError for a name that params.yaml does not list.
    """
    if names is None:
        return params
    for name in names.split(","):
        check_listed(params, name)
    return replace(params, generators={name: params.generators[name] for name in names.split(",")})


def _dry_run(params: Params, arguments: Namespace) -> int:
    if arguments.probe or arguments.records or arguments.shards or arguments.batch:
        raise ParamsError("--dry-run goes with --workers and --generators alone: it checks what is here")
    checked = dry_run.run(params, arguments.workers)
    print(dry_run.render(checked, as_json=arguments.json))
    return int(not checked.passed)
