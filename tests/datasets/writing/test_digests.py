import dataclasses
import os

import numpy as np
import pytest

from datasets.ingest import IngestConfig
from datasets.writing.digests import digest_of
from files.archives import locate_file


def test_different_values_have_different_digests_and_others_are_refused():
    config = IngestConfig()
    values = [config, dataclasses.replace(config, size=32), [1], ["1"], (1, 2), {"a": 1}, b"a", "a", None, IngestConfig]
    assert len({digest_of(value) for value in values}) == len(values)
    with pytest.raises(TypeError, match="function has no digest"):
        digest_of([digest_of])
    with pytest.raises(TypeError, match="ndarray has no digest"):
        digest_of(np.zeros(3))


def test_a_locator_has_another_digest_once_its_file_has_changed(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"12345")
    before = digest_of({"sources": [locate_file(tmp_path, "a.png")]})
    assert digest_of({"sources": [locate_file(tmp_path, "a.png")]}) == before
    os.utime(path, ns=(1, 1))
    assert digest_of({"sources": [locate_file(tmp_path, "a.png")]}) != before
