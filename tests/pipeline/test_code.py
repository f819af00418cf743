"""A stage depends on the code that dvc.yaml names for it and for the stages before it, and on nothing else."""

from pipeline.code import relevant_changes

CHANGES = (
    "datasets/ingest.py",
    "docs/lineage.md",
    "jobs/generators/csa/recipe.py",
    "jobs/generators/edge_connect/recipe.py",
    "jobs/report/page.py",
    "jobs/training/loop.py",
    "masks/strokes.py",
    "params.yaml",
    "pipeline/stages/edges.py",
    "pipeline/verbs/where.py",
    "tombstones.jsonl",
)


def test_only_files_that_a_stage_or_one_before_it_depends_on_count_as_changes():
    left_out = {"docs/lineage.md", "jobs/generators/csa/recipe.py", "jobs/report/page.py", "pipeline/verbs/where.py"}
    trained = tuple(name for name in CHANGES if name not in left_out)
    assert relevant_changes("train", "edge_connect", CHANGES) == trained
    assert relevant_changes("ingest", "", CHANGES) == ("datasets/ingest.py", "params.yaml", "tombstones.jsonl")
    assert relevant_changes("report", "", ("pipeline/verbs/where.py", "docs/lineage.md")) == ()
    assert relevant_changes("train", "edge_connect", None) is None
