"""List the code that makes a stage's outputs.

These are the `deps` of the stage in dvc.yaml that are code, and the lock of packages. DVC reruns a stage when one of
these files changes. For the same reason, once one of them has changed, a shard of an interrupted run is not reused and
an interrupted training is not continued. dvc.yaml is the only list.
"""

from __future__ import annotations

from ruamel.yaml import YAML

from files.checkout import FOLDERS, ROOT
from files.durable import file_digest

_LOCK = "requirements.lock"


def stage_code(stage: str, key: str = "") -> dict[str, str]:
    """Return the files of code that a stage declares, and the lock of packages, each with its SHA-256.

    stage: a name in dvc.yaml, such as "masks".
    key: the generator, for a stage that has one variant per generator.
    Returns path relative to the checkout -> digest, sorted by path.
    """
    stages = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    deps = [dep.replace("${key}", key) for dep in stages[stage].get("do", stages[stage])["deps"]]
    declared = [ROOT / dep for dep in deps if dep == _LOCK or dep.split("/")[0] in FOLDERS]
    files = {file for path in declared for file in ([path] if path.is_file() else path.rglob("*.py"))}
    return {file.relative_to(ROOT).as_posix(): file_digest(file) for file in sorted(files)}
