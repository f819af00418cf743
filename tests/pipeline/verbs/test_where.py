"""`where` prints places, and no secret."""

import pytest

from pipeline.verbs import where


@pytest.mark.parametrize("as_json", [False, True])
def test_the_password_of_the_server_is_not_printed(monkeypatch, as_json):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:s3cret@127.0.0.1:5000")
    printed = where.render(as_json=as_json)
    assert "s3cret" not in printed
    assert "open http://127.0.0.1:5000" in printed
