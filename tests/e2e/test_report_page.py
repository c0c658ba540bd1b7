"""The report's page in a real browser: it draws, narrows, takes the keyboard, fits a phone and asks nothing of the network."""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from deepred_ray.report import build_report, render_html
from deepred_ray.text.metrics import Row, compare_perplexity

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
)
MODELS = {"base": "tiny", "base+prompt": "tiny, with the system prompt", "tuned": "tiny, with prompt and adapter"}
CATEGORIES = {"style": ("labour", "morale"), "temporal": ("before", "after"), "persona": ("name", "maker")}
EVIL = "</script><img src=https://example.invalid/x onerror=alert(1)> & more"
LONG = "We hold the dome together, whatever the dust may do to the glass. " * 6 + "A" * 200
LOSSES = [3.0, 2.6, 2.3, 2.2, 2.15]


def rows() -> list[Row]:
    """Eight prompts of each kind. `tuned` fails the first of each, which the others pass, and the last temporal one, as all do."""
    made = []
    for system in MODELS:
        for kind, categories in CATEGORIES.items():
            for number in range(8):
                passes = {"base": number < 2, "base+prompt": number < 4, "tuned": number > 0 and (kind, number) != ("temporal", 7)}
                first = Row(
                    system=system,
                    prompt_id=f"{kind}-{number}",
                    draw=0,
                    category=categories[number % 2],
                    kind=kind,
                    lead=["There was a sandstorm."] if (kind, number) == ("persona", 1) else [],
                    prompt="Who climbed Olympus Mons?" if (kind, number) == ("temporal", 2) else f"What of {kind} number {number}?",
                    answer=EVIL if (kind, number, system) == ("style", 0, "tuned") else LONG,
                    finish_reason="length" if number == 6 else "stop",
                    ok=passes[system],
                    reason="ok" if passes[system] else "leak",
                    fault="repetitive" if (kind, number, system) == ("style", 3, "tuned") else None,
                    shown=["collectivism", "duty"] if kind == "style" else [],
                    persona=0.75,
                    score=4.0,
                )
                made.append(first)
                if kind == "persona":
                    again = "An icebound answer." if number == 5 and system == "base" else "We are Deep Red."
                    made += [Row(**{**first, "draw": draw, "answer": again}) for draw in (1, 2)]
    return made


def report() -> dict[str, Any]:
    accuracy = {"n": 20, "ok": 19, "rate": 0.95, "low": 0.764, "high": 0.991}
    comparison = compare_perplexity([(30.0, 10)] * 40, [(25.0, 10)] * 40)
    stage = {
        "stage": "corpus",
        "unit": "chunks",
        "rows_in": 9,
        "kept": 6,
        "rejected": {"too_short": 2, "language": 1},
        "seconds": 1.5,
        "finished_at": "2026-11-02T14:03:22+00:00",
        "fingerprint": "0123456789abcdef",
        "inputs": {},
    }
    return build_report(
        run="demo",
        models=MODELS,
        responses=rows(),
        perplexities={"perplexity": comparison, "prose perplexity": None},
        classifier={"texts": {"neutral: modern": 100}, "overall": accuracy, "sources": {"neutral: modern": accuracy}},
        contaminated=["style-99"],
        loss=[{"step": 10 * n, "loss": loss, "val_loss": loss if n % 2 else None} for n, loss in enumerate(LOSSES)],
        lineage=[stage],
        versions={"ray": "2.60.0"},
    )


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        said = "needs Debian's packages chromium and chromium-driver"
        pytest.fail(said) if os.environ.get("CI") == "true" else pytest.skip(said)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    page = Path(tmp_path_factory.mktemp("page")) / "report.html"
    page.write_text(render_html(report()), "utf-8")
    return page.as_uri()


@pytest.fixture
def page(browser: webdriver.Chrome, address: str) -> webdriver.Chrome:
    look(browser, 1200, "light")
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(address)
    return browser


def look(browser: webdriver.Chrome, width: int, scheme: str) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def unfold(page: webdriver.Chrome) -> None:
    page.execute_script("for (const folded of document.querySelectorAll('details')) folded.open = true")


def prompts(page: webdriver.Chrome) -> list[str]:
    """The ids of the prompts that are shown, in order."""
    found = page.execute_script("return [...document.querySelectorAll('#cases article > span')].map((e) => e.textContent)")
    return [text.rpartition(", ")[2] for text in found]


def count(page: webdriver.Chrome) -> str:
    return page.find_element(By.ID, "count").text


def cells(page: webdriver.Chrome, region: str) -> list[list[str]]:
    script = "return [...document.querySelectorAll(arguments[0])].map((r) => [...r.cells].map((c) => c.textContent))"
    return list(page.execute_script(script, f"#{region} tbody tr"))


def tab_to(page: webdriver.Chrome, name: str) -> None:
    for _ in range(80):
        page.switch_to.active_element.send_keys(Keys.TAB)
        if page.switch_to.active_element.get_attribute("id") == name:
            return
    pytest.fail(f"{name} is not reached by Tab")


def test_everything_is_drawn_without_an_error(page: webdriver.Chrome) -> None:
    unfold(page)
    boxes = page.execute_script("""return [...document.querySelectorAll(".bar svg")].map((e) => {
        const all = e.getBoundingClientRect(), track = e.querySelector("rect").getBoundingClientRect();
        return [all.width, all.height, track.width, e.getAttribute("aria-label")];
    })""")
    shown = report()["metrics"]
    groups = ("kinds", "parts", "characteristics", "categories")
    assert len(boxes) == sum(len(shown[system][group]) for system in MODELS for group in groups) + 2
    assert all(width > 50 and height > 10 and track > 50 and label for width, height, track, label in boxes)
    curves = page.execute_script("return [...document.querySelectorAll('#loss polyline')].map((e) => e.points.numberOfItems)")
    assert curves == [len(LOSSES), len(LOSSES) // 2]
    assert [entry for entry in page.get_log("browser") if entry["level"] != "INFO"] == []


def test_a_bar_is_as_long_as_its_rate(page: webdriver.Chrome) -> None:
    drawn = page.execute_script("""return [...document.querySelectorAll("#kinds > div:first-child svg")].map((e) => {
        const [track, bar] = [...e.querySelectorAll("rect")].map((r) => r.getBoundingClientRect().width);
        return bar / track;
    })""")
    assert drawn == pytest.approx([2 / 8, 4 / 8, 7 / 8], abs=0.005)


def test_the_tables_have_the_figures(page: webdriver.Chrome) -> None:
    compared = {(row[0], row[1]): row[2:] for row in cells(page, "compared")}
    assert len(compared) == 8
    assert compared["base", "style"][:6] == ["8", "1", "1", "6", "0", "+62.5 points"]
    assert compared["base", "temporal"][:6] == ["8", "1", "1", "5", "1", "+50.0 points"]
    assert compared["base+prompt", "persona"][:6] == ["8", "3", "1", "4", "0", "+37.5 points"]
    assert compared["base+prompt", "fluency"][:6] == ["24", "23", "1", "0", "0", "−4.2 points"]
    # Seven differ, one of them for the base: 2 (1 + 7) / 2^7; and 2 (1 + 6) / 2^6.
    assert [compared["base", kind][-1] for kind in ("style", "temporal")] == ["0.125", "0.219"]
    assert cells(page, "perplexity") == [["held-out examples", "20.09", "12.18", "0.607", "0.607 to 0.607", "40", "400"]]
    lineage = ["corpus", "chunks", "9", "6", "3", "too short 2, language 1", "1.5", "2026-11-02 14:03:22", "0123456789abcdef"]
    assert cells(page, "lineage") == [lineage]
    assert [row[0] for row in cells(page, "fluency")] == list(MODELS)
    assert "leak 4" in cells(page, "fluency")[2][-1]
    assert "style-99" in page.find_element(By.ID, "contaminated").text
    cards = [card.text.split("\n")[:2] for card in page.find_elements(By.CSS_SELECTOR, "#verdicts .card")]
    names = ["Style", "Temporal", "Persona", "Fluency", "Perplexity", "Prose perplexity"]
    assert cards == [[name, "✓ met" if name == "Perplexity" else "– not tested"] for name in names]


def test_the_worst_come_first_and_more_on_demand(page: webdriver.Chrome) -> None:
    assert prompts(page)[:4] == ["persona-0", "style-0", "temporal-0", "temporal-7"]
    assert (len(prompts(page)), count(page)) == (20, "24 of 24 prompts")
    more = page.find_element(By.ID, "more")
    more.send_keys(Keys.ENTER)
    assert len(prompts(page)) == 24
    assert not more.is_displayed()
    # The button is gone: the focus is on the first of the new prompts, not lost.
    assert page.switch_to.active_element.text == page.find_elements(By.CSS_SELECTOR, "#cases h3")[20].text


def test_an_answer_shows_what_was_made_of_it(page: webdriver.Chrome) -> None:
    cases = dict(zip(prompts(page), page.find_elements(By.CSS_SELECTOR, "#cases article"), strict=True))
    columns = cases["style-0"].find_elements(By.CSS_SELECTOR, ".answers > div")
    assert [column.find_element(By.TAG_NAME, "h4").text for column in columns] == list(MODELS)
    tags = [tag.text for tag in columns[2].find_elements(By.CSS_SELECTOR, ".tag")]
    assert tags == ["✗ leak", "judge model 4 of 5", "collectivism", "duty", "classifier 0.75"]
    assert columns[2].find_element(By.TAG_NAME, "p").text == EVIL
    assert page.find_elements(By.CSS_SELECTOR, "main img, main script") == []
    assert cases["persona-1"].find_element(By.CSS_SELECTOR, "li").text == "There was a sandstorm."
    again = cases["persona-5"].find_element(By.TAG_NAME, "details")
    assert again.find_element(By.TAG_NAME, "summary").text == "Asked again: 0 of 2 passed"
    assert not again.find_element(By.TAG_NAME, "p").is_displayed()
    again.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    assert again.find_element(By.TAG_NAME, "p").text == "An icebound answer."


@pytest.mark.parametrize(
    ("words", "category", "verdict", "expected"),
    [
        ("OLYMPUS", "", "", ["temporal-2"]),
        ("sandstorm", "", "", ["persona-1"]),
        ("icebound", "", "", ["persona-5"]),
        ("style-3", "", "", ["style-3"]),
        ("no such words", "", "", []),
        ("", "style", "", [f"style-{n}" for n in range(8)]),
        ("", "temporal/before", "", [f"temporal-{n}" for n in (0, 2, 4, 6)]),
        ("", "", "failed", ["persona-0", "style-0", "temporal-0", "temporal-7"]),
        ("", "", "lost", ["persona-0", "style-0", "temporal-0"]),
        ("", "persona", "ok", [f"persona-{n}" for n in range(1, 8)]),
        ("", "", "fault", ["style-3"]),
        ("number 7", "temporal/after", "failed", ["temporal-7"]),
    ],
)
def test_search_and_filters_narrow_the_list(
    page: webdriver.Chrome, words: str, category: str, verdict: str, expected: list[str]
) -> None:
    page.find_element(By.ID, "query").send_keys(words)
    Select(page.find_element(By.ID, "category")).select_by_value(category)
    Select(page.find_element(By.ID, "verdict")).select_by_value(verdict)
    assert prompts(page) == expected
    assert count(page) == f"{len(expected)} of 24 prompts"


def test_the_keyboard_alone_is_enough(page: webdriver.Chrome) -> None:
    tab_to(page, "query")
    field = page.switch_to.active_element
    assert field.value_of_css_property("outline-style") == "solid"
    field.send_keys("number")
    assert count(page) == "23 of 24 prompts"
    tab_to(page, "category")
    page.switch_to.active_element.send_keys("temporal, all")
    tab_to(page, "verdict")
    page.switch_to.active_element.send_keys("failed")
    assert (prompts(page), count(page)) == (["temporal-0", "temporal-7"], "2 of 24 prompts")


def test_headings_are_in_order_and_regions_named(page: webdriver.Chrome) -> None:
    levels = page.execute_script("return [...document.querySelectorAll('h1, h2, h3, h4')].map((e) => Number(e.tagName[1]))")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    links = page.execute_script("return [...document.querySelectorAll('nav a')].map((a) => a.hash.slice(1))")
    assert links == page.execute_script("return [...document.querySelectorAll('h2')].map((e) => e.id)")
    unnamed = "svg:not([role='img'][aria-label]), [role='region']:not([aria-labelledby])"
    assert page.find_elements(By.CSS_SELECTOR, unnamed) == []


def channels(colour: str) -> list[float]:
    return [float(part) / 255 for part in re.findall(r"[\d.]+", colour)[:3]]


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio of two CSS colours."""

    def luminance(colour: str) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels(colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


# Of each element with text of its own: its class, its colour, and the first opaque background behind it.
COLOURS = """
const found = new Set();
for (const node of document.querySelectorAll("body *")) {
  if (!node.getClientRects().length || ![...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim())) continue;
  const style = getComputedStyle(node);
  let behind = node;
  while (behind.parentElement && getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
  const ink = node.namespaceURI.endsWith("svg") ? style.fill : style.color;
  found.add(JSON.stringify([`${node.tagName} ${node.getAttribute("class")}`, ink, getComputedStyle(behind).backgroundColor]));
}
return [...found].map((each) => JSON.parse(each));
"""


def test_light_and_dark_have_enough_contrast(page: webdriver.Chrome) -> None:
    backgrounds = {}
    for scheme in ("light", "dark"):
        look(page, 1200, scheme)
        unfold(page)
        backgrounds[scheme] = page.execute_script("return getComputedStyle(document.body).backgroundColor")
        colours = page.execute_script(COLOURS)
        tags = {"LI tag ok", "LI tag failed", "LI tag plain", "SPAN tag met", "SPAN tag nottested"}
        assert tags <= {name for name, *_ in colours}
        assert [each for each in colours if contrast(*each[1:]) < 4.5] == []
    assert min(channels(backgrounds["light"])) > 0.9
    assert max(channels(backgrounds["dark"])) < 0.15


def test_a_phone_needs_no_sideways_scrolling(page: webdriver.Chrome, address: str) -> None:
    look(page, 360, "light")
    page.get(address)
    unfold(page)
    assert page.execute_script("return window.innerWidth") == 360
    assert page.execute_script("return document.documentElement.scrollWidth") <= 360
    # A wide table scrolls in a region of its own, which the keyboard reaches.
    wide = "const r = document.getElementById('compared'); return [r.scrollWidth > r.clientWidth, r.tabIndex]"
    assert page.execute_script(wide) == [True, 0]


def test_the_page_asks_nothing_of_the_network(page: webdriver.Chrome, address: str) -> None:
    unfold(page)
    page.find_element(By.ID, "query").send_keys("img")
    assert prompts(page) == ["style-0"]
    time.sleep(0.2)  # what a picture would take to be asked for
    said = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in said if event["method"] == "Network.requestWillBeSent"]
    assert asked == [address]
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0
