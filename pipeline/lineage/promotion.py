"""The reasons for which a registered version is not promoted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from jobs.evaluation.catalogue import BY_NAME, HEADLINE
from jobs.evaluation.metrics.value import Metric, Value
from jobs.evaluation.results import OVERALL, Summary
from jobs.runs.history import Version
from pipeline.lineage.checks import Check
from pipeline.lineage.settings import PromoteConfig

_NEEDED_TAGS = (
    "identity", "code_sha256", "packages_lock", "params_sha256", "provenance_sha256", "weights_sha256", "files_sha256",
    "images_manifest", "dataset", "licence", "rebuild",
)  # fmt: skip
TAKEDOWN_TAG = "takedown"
"""Tag of a version that was trained on pictures that were removed since: their keys."""


@dataclass(frozen=True, kw_only=True)
class Assessed:
    """A registered version with all that decides about its promotion.

    broken: comparisons of its files and records that failed.
    evaluations: suite -> summary.
    """

    version: Version
    broken: Sequence[Check] = ()
    evaluations: Mapping[str, Summary] = field(default_factory=dict)

    @property
    def generator(self) -> str:
        """The short name of the generator."""
        return self.version.name.removeprefix("inpaint-")

    @property
    def title(self) -> str:
        """The version as a user names it."""
        return f"{self.version.name}@{self.version.version}"

    def figures(self, suite: str) -> Mapping[str, Metric]:
        """Return the metrics over all pairs of a suite."""
        return self.evaluations[suite].rows[self.generator][OVERALL].metrics


def find_refusals(candidate: Assessed, champion: Assessed | None, rules: PromoteConfig) -> Iterator[str]:
    """Yield every reason against a promotion, in one line each.

    champion: the version to be replaced; None if there is none.
    """
    tags = candidate.version.tags
    yield from _refuse_tree(tags)
    missing = [name for name in _NEEDED_TAGS if not tags.get(name)]
    if missing:
        yield f"lineage is missing: it has no tag {', '.join(missing)}; train again"
    if candidate.broken:
        first = candidate.broken[0]
        yield f"{first.link} is not as recorded: expected {first.expected}, found {first.found}; {first.remedy}"
    if TAKEDOWN_TAG in tags:
        yield f"it was trained on pictures that were taken down since ({tags[TAKEDOWN_TAG]}); train again"
    for word in rules.forbidden_licences:
        if word.casefold() in tags.get("licence", "").casefold():
            yield (
                f"the licence of its data has {word!r}, which promote.forbidden_licences of params.yaml forbids: "
                f"{tags['licence']}"
            )
    yield from _refuse_figures(candidate, champion)


def _refuse_tree(tags: Mapping[str, str]) -> Iterator[str]:
    if tags.get("git_commit", "unknown") == "unknown":
        yield "it names no commit: it was trained outside git; train in a clone"
    elif tags.get("git_dirty") != "False":
        yield (
            f"it was trained in a dirty tree: {tags.get('git_changes') or 'files'} differed from the commit; commit, "
            "and train again"
        )


def _refuse_figures(candidate: Assessed, champion: Assessed | None) -> Iterator[str]:
    if not candidate.evaluations:
        yield f"it is not evaluated; run: dvc repro evaluate@{candidate.generator}"
        return
    for suite in champion.evaluations if champion else ():
        if suite not in candidate.evaluations:
            yield (
                f"it is not evaluated on the suite {suite}, as {champion.title} is, but on "
                f"{', '.join(candidate.evaluations)}; figures of two suites cannot be compared: evaluate both on one"
            )
            continue
        before, after = champion.figures(suite), candidate.figures(suite)
        for name in HEADLINE:
            if problem := _regression(name, before.get(name), after.get(name)):
                yield f"{problem} of {champion.title}, on the suite {suite}"


def _regression(name: str, before: Metric | None, after: Metric | None) -> str:
    """Return how a mean is worse than the 95 % interval of another one; "" if it is not."""
    if not isinstance(before, Value):
        return ""
    metric, wants_low = BY_NAME[name], BY_NAME[name].better == "lower"
    worst = before.high if wants_low else before.low
    worst = before.mean if worst is None else worst
    if not isinstance(after, Value):
        return f"{metric.title} has no value, unlike that"
    is_worse = after.mean > worst if wants_low else after.mean < worst
    digits = metric.digits
    return f"{metric.title} is {after.mean:.{digits}f}, worse than the limit {worst:.{digits}f}" if is_worse else ""
