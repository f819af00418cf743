"""The rules for a registered version to become the champion."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PromoteConfig:
    """The rules of `promote` that a project chooses.

    forbidden_licences: words; a version is not promoted if the licence of its data has one of them, in any case of
        letters. Such as ["non-commercial", "no publication"].
    """

    forbidden_licences: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not all(word.strip() for word in self.forbidden_licences):
            raise ValueError("forbidden_licences has an empty word, which every licence has")
