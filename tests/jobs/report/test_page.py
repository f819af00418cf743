"""The page escapes what is hostile and asks for nothing from outside."""

import base64
import hashlib
import re

import pytest

from jobs.report.page import render
from tests.jobs.report.pages import HOSTILE, Nodes, full_page, page


def test_title_line_says_what_was_compared():
    text = Nodes(render(page())).texts()
    for part in ("shapes", "1,200 images × 6 masks", "64 × 48 pixels", "trained for 2,000 steps", "suite 3f9a"):
        assert part in text


def test_hostile_text_adds_no_element_and_no_attribute():
    hostile, plain = Nodes(render(full_page(HOSTILE))), Nodes(render(full_page("plain")))
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements]
    assert [set(attributes) for _, attributes in hostile.elements] == [set(found) for _, found in plain.elements]
    assert hostile.texts().count("<script>alert(1)</script>") >= 20
    assert "49" not in hostile.texts()


@pytest.mark.parametrize("text", ["plain", HOSTILE])
def test_only_the_own_script_can_run_and_nothing_asks_for_anything(text):
    elements = Nodes(render(full_page(text))).elements
    assert [tag for tag, _ in elements].count("script") == 1
    forbidden = {"iframe", "object", "embed", "form", "base", "foreignobject", "video", "audio"}
    assert not forbidden & {tag for tag, _ in elements}
    for tag, attributes in elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
            value = attributes.get(name, "#")
            is_own = value.startswith(("#", "data:image/png;base64,"))
            assert is_own or (tag, value) in (("link", "data:,"), ("a", "../reports/centre/index.html"))
        assert "url(" not in attributes.get("style", "")
        assert attributes.get("clip-path", "url(#").startswith("url(#")


def test_policy_and_style_allow_no_request():
    html = render(full_page("plain"))
    policy = [found["content"] for tag, found in Nodes(html).elements if tag == "meta" and "http-equiv" in found]
    (script,) = re.findall("<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == [
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    ]
    assert html.index("Content-Security-Policy") < html.index("<style>")
    assert "://" not in html
    assert not re.search(r"@import|url\((?!#)", html)


def test_ids_are_unique_and_references_resolve():
    html = render(full_page("plain"))
    ids = [found["id"] for _, found in Nodes(html).elements if "id" in found]
    assert len(ids) == len(set(ids)) > 0
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', html)) <= set(ids)


def test_equal_data_give_equal_text_whatever_the_user_has_configured():
    import matplotlib

    html = render(full_page("plain"))
    with matplotlib.rc_context({"font.size": 30, "grid.linestyle": "--", "svg.fonttype": "path"}):
        assert render(full_page("plain")) == html
        assert matplotlib.rcParams["font.size"] == 30


def test_names_that_are_no_utf8_do_not_stop_the_page():
    assert "caf?" in Nodes(render(full_page("caf\udce9"))).texts()
