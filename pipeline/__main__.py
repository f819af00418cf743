"""The command line: `python -m pipeline <verb>`. The only argparse and the only exit codes.

Every verb's module is imported when that verb runs, so that help answers at once.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import sys
from typing import Any

from files.errors import UserError

# What the system says of the machine and not of this code: disk, quota, permissions, open files.
_MACHINE = {errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENOSPC, errno.EPERM, errno.EROFS}
_QUIET = {
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "DO_NOT_TRACK": "1",
}  # nothing calls home


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline",
        description="Retrain the image-inpainting generators of the papers. Stages are run by `dvc repro`.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")

    def verb(name: str, text: str, example: str) -> argparse.ArgumentParser:
        return verbs.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example: python -m pipeline {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    verb("ingest", "stage: raw images to image shards, records and manifests", "ingest")
    precompute = verb("precompute", "stage: columns made from the images", "precompute edges")
    precompute.add_argument(
        "column", choices=["edges", "semantics", "masks"], help="edges or labels of every split, or masks"
    )
    train = verb("train", "stage: train one generator", "train edge_connect")
    train.add_argument("generator", help="a name that params.yaml lists")
    stop = verb("stop", "ask running trainings to save and stop; they exit with 75", "stop edge_connect")
    stop.add_argument("generator", nargs="?", help="a name that params.yaml lists (default: all of them)")
    evaluate = verb("evaluate", "stage: score one generator, or the baselines", "evaluate edge_connect")
    evaluate.add_argument("row", help='a generator that params.yaml lists, or "baselines"')
    verb("report", "stage: all results to one page", "report")
    generators = verb("generators", "list the generators there are", "generators --json")
    generators.add_argument("--json", action="store_true", help="print JSON")
    configure = verb("configure", "write the list of generators into params.yaml", "configure --generators all")
    configure.add_argument("--generators", required=True, help='"all", or names with commas between')
    configure.add_argument("--preset", choices=["demo", "paper"], default="demo", help="their values (default: demo)")
    datasets = verb("datasets", "list the data sets there are and what each needs on disk", "datasets places2")
    datasets.add_argument("name", nargs="?", help="show one whole, with its known defects and options")
    datasets.add_argument("--json", action="store_true", help="print JSON")
    where = verb("where", "print where the report, the tracking database and the registered models are", "where")
    where.add_argument("--json", action="store_true", help="print JSON")
    duplicates = verb(
        "duplicates", "list pictures that lie, equal or nearly so, in two splits", "duplicates --distance 4"
    )
    duplicates.add_argument("--distance", type=int, default=4, help="bits of 64 that may differ (default: 4)")
    duplicates.add_argument("--json", action="store_true", help="print JSON")
    plan = verb(
        "plan",
        "prove that every record is read once by any number of workers, and say what a run reads, keeps and costs",
        "plan --probe --workers 16 --price-per-hour 2.5",
    )
    plan.add_argument("--records", type=int, help="plan for so many records instead of the shards that are here")
    plan.add_argument("--shards", type=int, help="with --records: in so many shards (default: as ingest deals them)")
    plan.add_argument("--workers", type=int, help="training processes (default: cluster.train_workers)")
    plan.add_argument("--batch", type=int, help="with --records: images per step, over all workers")
    plan.add_argument("--images-per-second", type=float, default=100.0, help="for which MB/s are stated (default: 100)")
    plan.add_argument("--generators", help="of those in params.yaml only these, with commas between")
    plan.add_argument("--probe", action="store_true", help="take a few steps of each generator here and price its run")
    plan.add_argument("--seconds", type=float, help="with --probe: per generator (default: 20)")
    plan.add_argument("--gigabits-per-second", type=float, help="with --probe: of each worker, to exchange gradients")
    plan.add_argument("--price-per-hour", type=float, help="with --probe: of one worker, in any currency")
    plan.add_argument(
        "--dry-run", action="store_true", help="check, on this machine alone, all that so many workers will need"
    )
    plan.add_argument("--json", action="store_true", help="print JSON")
    audit = verb("audit", "read every byte of the shards and say what is wrong; changes nothing", "audit --json")
    audit.add_argument("--json", action="store_true", help="print JSON")
    audit.add_argument("--quarantine", action="store_true", help="take unusable images out, as takedown does")
    takedown = verb(
        "takedown",
        "take images out of all shards and keep them out; without names, finish or obey tombstones.jsonl",
        'takedown train/beach_0042 --reason "the owner asked for it"',
    )
    takedown.add_argument("names", nargs="*", metavar="name", help="a record's key, or the name of its source")
    takedown.add_argument("--reason", help="why, in your words; needed with names")
    takedown.add_argument("--date", help="when this was decided, YYYY-MM-DD (default: today)")
    takedown.add_argument("--this-copy-only", action="store_true", help="leave other records with the same bytes in")
    takedown.add_argument("--json", action="store_true", help="print JSON")
    deliver = verb(
        "deliver", "bring the tracking server what finished trainings could not, because it did not answer", "deliver"
    )
    deliver.add_argument("--json", action="store_true", help="print JSON")
    inpaint = verb(
        "inpaint",
        "fill the hole of an image with a registered generator",
        "inpaint edge_connect photo.png hole.png filled.png",
    )
    inpaint.add_argument("generator")
    inpaint.add_argument("image", help="PNG or JPEG")
    inpaint.add_argument("mask", help="black-and-white PNG of the same size, white = hole")
    inpaint.add_argument("output", help="PNG to write")
    inpaint.add_argument("--version", default="candidate", help="a version number or an alias (default: candidate)")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    """The exit code of a verb that did not fail."""
    if arguments.verb in ("generators", "datasets", "where"):
        from pipeline import listing

        which = (arguments.name,) if arguments.verb == "datasets" else ()
        print(getattr(listing, arguments.verb)(*which, as_json=arguments.json))
        return 0
    if arguments.verb == "configure":
        from pipeline.verbs import configure

        print(configure.run(arguments.generators, arguments.preset))
        return 0
    if arguments.verb == "duplicates":
        from pipeline.verbs import duplicates

        print(duplicates.run(arguments.distance, as_json=arguments.json))
        return 0
    if arguments.verb == "inpaint":
        from pipeline.verbs import inpaint

        inpaint.run(arguments.generator, arguments.image, arguments.mask, arguments.output, arguments.version)
        return 0
    from pipeline.params import read_params

    params = read_params()
    if arguments.verb == "plan":
        return _plan(params, arguments)
    if arguments.verb == "audit":
        from pipeline.verbs import audit

        found = audit.run(params, quarantine=arguments.quarantine)
        print(audit.render(found, as_json=arguments.json))
        return int(bool(found.findings) and found.quarantined is None)
    if arguments.verb == "deliver":
        from pipeline.verbs import deliver

        deliveries = deliver.run(params)
        print(deliver.render(deliveries, as_json=arguments.json))
        return int(any(delivery.problem for delivery in deliveries))
    if arguments.verb == "takedown":
        from pipeline.verbs import takedown

        outcome = takedown.run(
            params, arguments.names, arguments.reason, arguments.date, this_copy_only=arguments.this_copy_only
        )
        print(takedown.render(outcome, as_json=arguments.json))
    elif arguments.verb == "ingest":
        from pipeline.stages import ingest

        ingest.run(params)
    elif arguments.verb == "precompute":
        from pipeline.stages import edges, masks, semantics

        {"edges": edges.run, "masks": masks.run, "semantics": semantics.run}[arguments.column](params)
    elif arguments.verb == "train":
        from pipeline.stages import train

        train.run(params, arguments.generator)
    elif arguments.verb == "stop":
        from pipeline.verbs import stop

        print(stop.run(params, arguments.generator))
    elif arguments.verb == "evaluate":
        from pipeline.stages import evaluate

        evaluate.run(params, arguments.row)
    elif arguments.verb == "report":
        from pipeline.stages import report

        report.run(params)
    return 0


def _plan(params: Any, arguments: argparse.Namespace) -> int:
    from pipeline.params import ParamsError
    from pipeline.verbs import plan

    params = plan.only(params, arguments.generators)
    numbers = {name: getattr(arguments, name) for name in ("records", "shards", "batch")}
    probing = {name: getattr(arguments, name) for name in ("seconds", "gigabits_per_second", "price_per_hour")}
    probing = {name: value for name, value in probing.items() if value is not None}
    if probing and not arguments.probe:
        raise ParamsError(f"--{next(iter(probing)).replace('_', '-')} goes with --probe")
    if arguments.dry_run:
        if arguments.probe or any(numbers.values()):
            raise ParamsError("--dry-run goes with --workers and --generators alone: it checks what is here")
        from pipeline.verbs import dry_run

        checked = dry_run.run(params, arguments.workers)
        print(dry_run.render(checked, as_json=arguments.json))
        return int(not checked.passed)
    planned = plan.run(params, workers=arguments.workers, images_per_second=arguments.images_per_second, **numbers)
    failed = any(reading.problem for reading in planned.readings)
    if not arguments.probe:
        print(plan.render(planned, as_json=arguments.json))
        return int(failed)
    from pipeline.verbs import price

    priced = price.run(
        params,
        workers=arguments.workers,
        use_shards=arguments.records is None,
        **probing,
    )
    print(price.render(planned, priced, as_json=arguments.json))
    return int(failed or not priced.is_good)


def main(words: list[str] | None = None) -> int:
    """Run one verb and return its exit code.

    A UserError, and what the system says of a full disk and the like, is one line on standard error and exit code 1;
    any other exception is a defect and keeps its traceback.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in _QUIET.items()})
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    arguments = _parser().parse_args(words)
    try:
        return _run(arguments)
    except Exception as error:
        if not _is_mendable(error):
            raise
        from pipeline.progress import printable

        print(f"{arguments.verb}: {printable(str(error))}", file=sys.stderr)  # names from outside may stand in it
        return getattr(error, "exit_code", 1)
    except KeyboardInterrupt:
        return 130


def _is_mendable(error: Exception) -> bool:
    """Whether the message tells the user what to do: an error that we named, or the system's about its own state."""
    return isinstance(error, UserError) or (isinstance(error, OSError) and error.errno in _MACHINE)


if __name__ == "__main__":
    sys.exit(main())
