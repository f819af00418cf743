"""Libraries are kept from contacting their makers, unless the user wants them to."""

import os

from files.environment import QUIET_ENVIRONMENT, set_quiet_environment


def test_variables_are_set_and_those_of_the_user_stay(monkeypatch):
    first, *others = QUIET_ENVIRONMENT
    monkeypatch.setenv(first, "as the user likes")
    for name in others:
        monkeypatch.delenv(name, raising=False)
    set_quiet_environment()
    assert os.environ[first] == "as the user likes"
    assert {name: os.environ[name] for name in others} == {name: QUIET_ENVIRONMENT[name] for name in others}
