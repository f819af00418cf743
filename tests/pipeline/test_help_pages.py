"""Every error of this code has a page of the documentation that helps, and the command line names it."""

import ast
import errno
import importlib
import pkgutil

import pytest

from files.checkout import FOLDERS, ROOT
from files.errors import UserError
from pipeline.help_pages import MACHINE, PAGES, page_for, page_of
from tests.test_docs import anchors


def _declared() -> list[type[UserError]]:
    """Every class of errors that a user can mend. The modules that declare one are found by their text."""
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            bases = {
                ast.unparse(base)
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.ClassDef)
                for base in node.bases
            }
            if any(base.endswith("Error") for base in bases):
                importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    found, waiting = [], [UserError]
    while waiting:
        subclasses = waiting.pop().__subclasses__()
        found += [each for each in subclasses if each.__module__.split(".")[0] in FOLDERS]
        waiting += subclasses
    return found


def test_every_error_has_a_page_that_exists():
    classes = _declared()
    assert len(classes) > 40
    for each in classes:
        page, _, anchor = page_of(each.__module__).partition("#")
        assert (ROOT / page).is_file(), (each, page)
        assert anchor in anchors(ROOT / page), (each, page, anchor)


@pytest.mark.parametrize("page", sorted({*PAGES.values(), MACHINE}))
def test_every_page_of_the_table_exists(page):
    path, _, anchor = page.partition("#")
    assert anchor in anchors(ROOT / path)


def test_every_module_of_the_table_exists_and_every_room_is_in_it():
    for module in PAGES:
        assert pkgutil.resolve_name(module).__name__ == module
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("[!_]*.py"):
            assert page_of(".".join(path.relative_to(ROOT).with_suffix("").parts))


def test_a_plain_error_belongs_to_the_module_that_raised_it():
    from pipeline.verbs import inpaint

    with pytest.raises(UserError) as error:
        inpaint.run("edge_connect", "photo.png", "hole.png", "filled.jpg")
    assert type(error.value) is UserError
    assert page_for(error.value) == "docs/getting_started.md#your-own-pictures"
    assert page_for(OSError(errno.ENOSPC, "full")) == MACHINE
    assert page_for(UserError("of nowhere")) == page_of("pipeline")


def test_a_module_of_no_room_has_no_page():
    with pytest.raises(KeyError):
        page_of("somewhere.else")
