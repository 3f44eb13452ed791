"""The page in headless Chromium: silent, complete, reachable by keyboard, readable in the dark."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import report_choices as choices
import report_results as results
import report_robust as robust
from walnut.report import render

pytestmark = pytest.mark.browser

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PAGES = {
    "audit": lambda: (results.audit(), results.arrays()),
    "transfer": lambda: (results.transfer(), None),
    "attack": lambda: (results.attack(), results.arrays(shape=(20,))),
    "train": lambda: (results.train(), None),
    "robustness": lambda: (robust.robustness(), results.arrays()),
    "search": lambda: (choices.search(), None),
}


@pytest.fixture(scope="module", name="driver")
def fixture_driver(tmp_path_factory) -> Iterator[Any]:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    service = shutil.which("chromedriver")
    if not browser or not service:
        pytest.skip("chromium and chromedriver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # the path is given, so that selenium never looks for a driver to download
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(service))
    yield driver
    driver.quit()


@pytest.fixture(scope="module", name="folder")
def fixture_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    for name, make in PAGES.items():
        render(*make(), folder / f"{name}.html")
    return folder


def show(driver: Any, path: Path, *, width: int = 1280, scheme: str = "light") -> None:
    """Open a page at a width in a colour scheme, and expect no word on the console."""
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wish = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wish})
    driver.get(path.as_uri())
    assert driver.get_log("browser") == []


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_figures_are_there_and_nothing_overflows(driver, folder, name, width):
    show(driver, folder / f"{name}.html", width=width)
    found = driver.execute_script(
        """return {over: document.documentElement.scrollWidth - document.documentElement.clientWidth,
        boxes: [...document.querySelectorAll('svg, img')].map(e => {
          const b = e.getBoundingClientRect(); return [b.width, b.height]}),
        broken: [...document.images].filter(i => !i.naturalWidth).length}"""
    )
    assert found["over"] <= 0
    assert found["broken"] == 0
    assert found["boxes"]
    assert all(w >= 20 and h >= 15 for w, h in found["boxes"])


@pytest.mark.parametrize("name", PAGES)
def test_text_in_figures_is_large_enough_on_a_phone(driver, folder, name):
    show(driver, folder / f"{name}.html", width=390)
    sizes = driver.execute_script(
        """return [...document.querySelectorAll('svg')].map(s =>
        s.getBoundingClientRect().width / s.viewBox.baseVal.width * 11.5)"""
    )
    assert min(sizes) >= 9, sizes


@pytest.mark.parametrize("name", PAGES)
def test_text_stays_inside_its_figure(driver, folder, name):
    show(driver, folder / f"{name}.html")
    outside = driver.execute_script(
        """return [...document.querySelectorAll('svg')].flatMap(s => {
        const box = s.getBoundingClientRect();
        return [...s.querySelectorAll('text')].filter(t => {
          const b = t.getBoundingClientRect();
          return b.left < box.left - 2 || b.right > box.right + 2 || b.top < box.top - 2
                 || b.bottom > box.bottom + 2}).map(t => t.textContent)})"""
    )
    assert outside == []


def test_the_first_screen_holds_verdict_and_table(driver, folder):
    show(driver, folder / "audit.html")
    top = driver.execute_script(
        "return document.querySelector('table tbody tr').getBoundingClientRect().bottom"
    )
    assert top < 900


def test_red_flags_stand_above_the_figure_and_good_checks_are_folded(driver, folder):
    show(driver, folder / "robustness.html", width=390)
    headline, flag, figure, tile = driver.execute_script(
        """return ['.headline', '.flag.wrong', '.figure', '.tiles'].map(name =>
        document.querySelector(name).getBoundingClientRect().top)"""
    )
    assert headline < flag < figure < tile
    assert "61.2" not in driver.execute_script(
        "return document.querySelector('.headline').textContent"
    )
    shown = """const found = [...document.querySelectorAll('td')].find(
        e => e.textContent.includes('ten times over')); return found.checkVisibility()"""
    assert not driver.execute_script(shown)
    driver.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert driver.execute_script(shown)


def test_maps_differ_in_more_than_colour_and_follow_the_theme(driver, folder):
    regions = """return [...document.querySelectorAll('#maps svg')].map(s =>
        [...s.querySelectorAll('path')].map(p => getComputedStyle(p).fill)
        .filter(f => f !== 'none'))"""
    found = []
    for scheme in ("light", "dark"):
        show(driver, folder / "robustness.html", scheme=scheme)
        found.append(driver.execute_script(regions))
        names = driver.execute_script(
            "return [...document.querySelectorAll('#maps svg text')].map(t => t.textContent)"
        )
        assert {"3", "5", "8", "9"} <= set(names)  # every region is named
    assert all(len(set(map_)) >= 4 for map_ in found[0])
    assert all(a != b for a, b in zip(*found, strict=True))


def test_tab_reaches_every_region_and_every_summary(driver, folder):
    from selenium.webdriver.common.keys import Keys

    show(driver, folder / "audit.html", width=390)
    wanted = driver.execute_script(
        """return [...document.querySelectorAll('a[href], summary, [tabindex="0"]')]
        .filter(e => e.checkVisibility()).length"""
    )
    assert wanted > 15
    reached = set()
    for _ in range(wanted):
        driver.switch_to.active_element.send_keys(Keys.TAB)
        place = """const e = document.activeElement;
        return [[...document.querySelectorAll('*')].indexOf(e),
                getComputedStyle(e).outlineStyle, e.matches(':focus-visible')]"""
        index, outline, visible = driver.execute_script(place)
        reached.add(index)
        assert visible
        assert outline != "none"
    assert len(reached) == wanted
    driver.execute_script("document.querySelector('summary').focus()")
    driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert driver.execute_script("return document.querySelector('details').open")


@pytest.mark.parametrize("name", PAGES)
def test_what_a_screen_reader_hears(driver, folder, name):
    show(driver, folder / f"{name}.html")
    nodes = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    heard: dict[str, list[str]] = {}
    for node in nodes:
        if not node.get("ignored"):
            role = node.get("role", {}).get("value", "")
            heard.setdefault(role, []).append(node.get("name", {}).get("value", ""))
    for role in ("image", "region", "link", "heading", "table", "DisclosureTriangle"):
        assert all(heard.get(role, [])), role
    charts = driver.execute_script("return document.querySelectorAll('svg').length")
    pictures = driver.execute_script("return document.images.length")
    assert len(heard.get("image", [])) == charts + pictures
    assert {"banner", "main", "contentinfo", "navigation"} <= set(heard)


CONTRAST = """
const parse = c => { const m = c.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m };
const lum = c => { const [r, g, b] = c.map(v => { v /= 255;
  return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4 }); return .2126*r + .7152*g + .0722*b };
const ground = e => { for (; e; e = e.parentElement) {
  const c = parse(getComputedStyle(e).backgroundColor); if (c[3] > 0) return c } return [255, 255, 255, 1] };
const low = [];
for (const e of document.querySelectorAll('body *')) {
  const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own || ['title', 'desc'].includes(e.localName)) continue;
  const style = getComputedStyle(e);
  const ink = parse(e.localName === 'text' ? style.fill : style.color);
  const [a, b] = [lum(ink.slice(0, 3)), lum(ground(e).slice(0, 3))].sort((x, y) => x - y);
  if ((b + .05) / (a + .05) < 4.5) low.push([e.localName, e.textContent.slice(0, 30), style.color]);
}
return low"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_every_text_can_be_read(driver, folder, name, scheme):
    show(driver, folder / f"{name}.html", scheme=scheme)
    driver.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    ground = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    bright = sum(int(part) for part in ground.removeprefix("rgb(").rstrip(")").split(","))
    assert (bright > 600) == (scheme == "light")
    assert driver.execute_script(CONTRAST) == []


def test_on_paper_it_is_light(driver, folder):
    wish = [{"name": "prefers-color-scheme", "value": "dark"}]
    show(driver, folder / "audit.html", scheme="dark")
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": wish})
    ink = driver.execute_script("return getComputedStyle(document.body).color")
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert ink == "rgb(26, 31, 37)"
