import pytest

from jobs.checks.units import format_bytes


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "-"), (0, "0 B"), (999, "999 B"), (1000, "1 kB"), (25.34e9, "25.3 GB"), (7e15, "7e+03 TB")],
)
def test_bytes_have_three_digits_and_a_decimal_unit(count, text):
    assert format_bytes(count) == text
