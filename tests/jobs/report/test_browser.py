"""The page in a real browser: sorting, the slider, light and dark, phone and desktop; no error and no request."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from jobs.evaluation.metrics.value import Value
from jobs.report.data import GalleryCell, GalleryRow
from jobs.report.page import render
from tests.jobs.report.pages import HOSTILE, full_page, page, png, row

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium")
FIGURES = {"a": 5.0, "b": 3.0, "c": 4.0, "mean_colour": 9.0}


@pytest.fixture(scope="module")
def chromium():
    """A browser without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    if CHROMIUM is None:
        pytest.skip("needs the program chromium, such as Debian's package of that name")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def show(chromium, tmp_path):
    """Open a page of the report. Fails at the end if it had an error, or asked for anything but itself."""
    opened = []

    def open_page(content, width=1280, scheme="light"):
        path = tmp_path / "index.html"
        path.write_text(render(content), encoding="utf-8")
        tab = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        problems, requests = [], []
        tab.on("console", lambda message: problems.append(message.text))
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(path.as_uri())
        opened.append((tab, path.as_uri(), problems, requests))
        return tab

    yield open_page
    for tab, address, problems, requests in opened:
        assert not problems
        assert [url for url in requests if not url.startswith("data:")] == [address]
        tab.close()


def with_gallery():
    """Two pairs, filled by a and b; the pictures are grey, of levels that tell them apart."""
    rows = [
        GalleryRow(
            key=key,
            bin="0.1-0.2",
            caption="",
            disagreement=2.0 - number,
            cells=[
                GalleryCell("input", png(level=255)),
                GalleryCell("a", png(level=10 + number), png(level=200), 5.0),
                GalleryCell("b", png(level=20 + number), png(level=210), 3.0),
                GalleryCell("truth", png(level=90 + number)),
            ],
        )
        for number, key in enumerate(("first", "second"))
    ]
    kinds = {name: "baseline" if name == "mean_colour" else "generator" for name in FIGURES}
    metrics = {"psnr": Value(20.0)}
    return page(
        rows=[row(name, figure, kinds[name], metrics=metrics) for name, figure in FIGURES.items()], gallery=rows
    )


def shades(tab):
    """The grey levels in the viewer at one, three and seven eighths of the width."""
    picture = np.array(Image.open(io.BytesIO(tab.locator(".stage").screenshot())).convert("L"))
    height, width = picture.shape
    return [int(picture[height // 2, width * part // 8]) for part in (1, 3, 7)]


def slide(tab, position):
    tab.locator(".viewer input[type=range]").evaluate(
        "(slider, to) => { slider.value = to; slider.dispatchEvent(new Event('input')); }", position
    )


def test_a_press_on_a_heading_sorts_all_rows_and_the_third_restores_the_groups(show):
    tab = show(with_gallery())
    table = tab.locator("table.sortable").first
    heading = table.locator("th[scope=col]").first
    names = "rows => rows.filter(row => row.offsetParent).map(row => row.querySelector('bdi').textContent)"

    def visible():
        return table.locator("tbody tr:not(.group)").evaluate_all(names)

    groups = ["b", "c", "a", "mean_colour"]
    seen = []
    for _ in range(4):
        seen.append((heading.get_attribute("aria-sort"), visible()))
        heading.get_by_role("button").click()
    by_error = sorted(FIGURES, key=FIGURES.get)
    assert seen == [(None, groups), ("ascending", by_error), ("descending", by_error[::-1]), (None, groups)]
    assert table.locator(".kind").first.is_visible()  # after a fourth press
    table.locator("th[scope=col]").last.get_by_role("button").click()
    assert table.locator("th[scope=col]").last.get_attribute("aria-sort") == "descending"  # PSNR


def test_the_slider_opens_on_the_generator_with_the_smallest_error(show):
    tab = show(with_gallery())
    chosen = tab.locator(".viewer select").last
    assert chosen.evaluate("select => select.selectedOptions[0].textContent") == "b"
    assert shades(tab) == [20, 20, 20]


def test_the_slider_wipes_from_the_input_over_the_result_to_the_truth(show):
    tab = show(with_gallery())
    tab.locator(".viewer select").last.select_option(label="a")
    for position, expected in ((0, [255, 255, 255]), (0.5, [255, 255, 10]), (1, [10, 10, 10]),
                               (1.5, [10, 10, 90]), (2, [90, 90, 90])):  # fmt: skip
        slide(tab, position)
        assert shades(tab) == pytest.approx(expected, abs=1)


def test_pictures_are_chosen_by_a_press_and_by_name_and_errors_take_their_place(show):
    tab = show(with_gallery())
    tab.get_by_alt_text("b, second").last.click()
    assert shades(tab) == [21, 21, 21]
    assert tab.locator(".viewer output").text_content() == "3.00 %"
    tab.locator(".viewer select").last.select_option(label="a")
    assert shades(tab) == [11, 11, 11]
    tab.get_by_text("Errors in place of results").click()
    assert shades(tab) == [200, 200, 200]
    inside = tab.locator(".gallery td[data-role=result] img").evaluate_all(
        "found => found.map(i => i.src === i.dataset.error)"
    )
    assert inside == [True] * 4
    tab.get_by_text("Errors in place of results").click()
    assert shades(tab) == [11, 11, 11]


@pytest.mark.parametrize(
    ("width", "scheme", "is_dark"), [(390, "dark", True), (390, "light", False), (1280, "dark", True)]
)
def test_the_page_fits_a_phone_and_a_desk_light_and_dark_with_hostile_names(show, width, scheme, is_dark):
    tab = show(full_page(HOSTILE), width=width, scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(int(part) for part in background[4:-1].split(",")) < 64) == is_dark
    assert tab.locator(".viewer").is_visible()


def test_the_page_is_whole_without_scripts(chromium, tmp_path):
    context = chromium.new_context(java_script_enabled=False)
    tab = context.new_page()
    (tmp_path / "index.html").write_text(render(with_gallery()), encoding="utf-8")
    tab.goto((tmp_path / "index.html").as_uri())
    assert tab.locator(".gallery img").count() == 8
    assert not tab.locator(".viewer").is_visible()
    context.close()
