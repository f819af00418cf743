"""No printed form of an address holds a secret."""

import pytest

from files.addresses import display_address, without_secrets
from files.errors import UserError
from files.objects import ObjectStore, StoreConfig, StoreError


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://me:s3cret@127.0.0.1:5000/base?token=s3cret#s3cret", "http://127.0.0.1:5000/base"),
        ("https://tracking.example.org", "https://tracking.example.org"),
        ("http://me:s3/c?r#e@t@host:5000/base", "http://host:5000/base"),
        ("http://token@host/base", "http://host/base"),
        ("https://me:s3cret@host/base?mail=a@b.c", "https://host/base"),
        ("http://host:5000/models@champion", "http://host:5000/models@champion"),
        ("me:s3cret@host:5000", "host:5000"),
        ("sqlite:////tmp/my work (2)/mlflow.db", "sqlite:////tmp/my work (2)/mlflow.db"),
        ("sqlite:////tmp/#1/mlflow.db?timeout=30", "sqlite:////tmp/#1/mlflow.db"),
        ("s3://key:s3cret@bucket/prefix", "s3://bucket/prefix"),
        ("postgresql://me:p@ss@db/mlflow", "postgresql://db/mlflow"),
        ("https:/me:s3cret@host/x", "https:/host/x"),  # as pathlib writes it
        ("models:/inpaint-toy@candidate", "models:/inpaint-toy@candidate"),
        ("/data/mlruns", "/data/mlruns"),
        ("/home/me@work:x/mlruns", "/home/me@work:x/mlruns"),
    ],
)
def test_an_address_is_printed_without_secrets(address, shown):
    assert display_address(address) == shown
    if " " not in address and ":/" in address:
        assert without_secrets(f"cannot read '{address}': refused ({address})") == (
            f"cannot read '{shown}': refused ({shown})"
        )


def test_the_message_of_an_error_holds_no_secret():
    assert str(UserError("https://me:s3cret@host/x?sig=s3cret is missing")) == "https://host/x is missing"


@pytest.mark.parametrize("url", ["s3://key:s3cret@bucket/x", "https://host/x?token=s3cret", "s3cret"])
def test_an_address_of_a_store_with_a_secret_is_refused_without_printing_it(url):
    with pytest.raises(StoreError, match=r"store\.url must be") as error:
        StoreConfig(url=url)
    assert ("s3cret" in str(error.value)) == (url == "s3cret")  # no address: printed as it was given


def test_an_error_of_a_client_is_told_without_the_query_of_its_address(caplog):
    store = ObjectStore(StoreConfig(url="http://127.0.0.1:9/prefix", attempts=2, wait_seconds=0.01))

    def request():
        raise OSError("403 for http://me:s3cret@127.0.0.1:9/prefix/x?X-Amz-Signature=s3cret")

    with pytest.raises(StoreError, match=r"403 for http://127\.0\.0\.1:9/prefix/x") as error:
        store._attempt("x", "read", request)
    assert "again in" in caplog.text  # the first attempt is logged
    assert "s3cret" not in caplog.text + str(error.value)
