"""Compare recorded digests of files with a commit of git."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable

from files.checkout import ROOT


def digests_at(commit: str, names: Iterable[str]) -> dict[str, str] | None:
    """Return name -> SHA-256 of the files that a commit has, of some names; None if the commit is not here.

    names: paths relative to the checkout.
    """
    asked = sorted(names)
    try:
        known = subprocess.run(
            ["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=ROOT, capture_output=True, check=False
        )
        if known.returncode:
            return None
        request = "".join(f"{commit}:{name}\n" for name in asked).encode()
        answer = subprocess.run(
            ["git", "cat-file", "--batch"], cwd=ROOT, input=request, capture_output=True, check=True
        ).stdout
    except FileNotFoundError:
        return None
    digests, start = {}, 0
    for name in asked:
        end = answer.index(b"\n", start)
        head, start = answer[start:end], end + 1
        if not head.endswith(b" missing"):
            size = int(head.rsplit(b" ", 1)[1])
            digests[name] = hashlib.sha256(answer[start : start + size]).hexdigest()
            start += size + 1
    return digests
