"""The report's figures and its page: complete, safe and self-contained."""

import json
import re
from typing import Any

import pytest

from deepred_ray.report import build_report, render_html
from deepred_ray.text.metrics import Row, compare_perplexity

MODELS = {"base": "tiny", "base + prompt": "tiny with a system prompt", "tuned": "tiny with adapter"}
EVIL = "</script><script>alert(1)</script><!-- & \u2028 \u2029 @@REPORT@@ <img src=x onerror=alert(2)>"


def _rows(answer: str = "We go on together.") -> list[Row]:
    return [
        Row(
            system=system,
            prompt_id=f"{kind}-{number:03}",
            category="one",
            kind=kind,
            prompt="Why?",
            answer=answer,
            finish_reason="stop",
            ok=ok,
            reason="ok" if ok else "leak",
        )
        for system in MODELS
        for kind in ("style", "temporal")
        for number in range(80)
        for ok in [number > 30 if system == "tuned" else number > 60 or number in (4, 5)]
    ]


def _report(**changes: Any) -> dict[str, Any]:
    inputs: dict[str, Any] = {
        "run": "demo",
        "models": MODELS,
        "responses": _rows(),
        "perplexity": compare_perplexity([(30.0, 10)] * 40, [(25.0, 10)] * 40),
        "loss": [{"step": 1, "loss": 3.0, "val_loss": 3.1}, {"step": 2, "loss": 2.0, "val_loss": None}],
        "stages": [{"stage": "acquire", "rows_in": 6, "kept": 5, "rejected": 1, "seconds": 2.0}],
        "versions": {"ray": "2.60.0"},
    }
    return build_report(**{**inputs, **changes})


def _block(page: str) -> str:
    found = re.findall(r'<script type="application/json" id="report">(.*?)</script>', page, re.DOTALL)
    assert len(found) == 1
    return str(found[0])


def test_every_target_has_a_verdict() -> None:
    verdicts = {verdict["target"]: verdict["status"] for verdict in _report()["verdicts"]}
    assert verdicts == {"style": "not met", "temporal": "not met", "persona": "not tested", "perplexity": "met"}
    unmeasured = _report(perplexity=None)["verdicts"][-1]
    assert (unmeasured["target"], unmeasured["status"]) == ("perplexity", "not tested")


def test_the_last_system_is_judged() -> None:
    report = _report()
    assert report["judged"] == "tuned"
    assert report["metrics"]["tuned"]["kinds"]["style"]["ok"] == 49
    assert list(report["metrics"]) == list(MODELS)


def test_worst_cases_come_first() -> None:
    order = [case["id"] for case in _report()["cases"]]
    assert order[:4] == ["style-004", "style-005", "temporal-004", "temporal-005"]
    assert order[4] == "style-000"
    assert order[-1] == "temporal-079"
    assert len(order) == 160


@pytest.mark.parametrize(
    "changes",
    [
        {"models": {}},
        {"responses": []},
        {"models": {**MODELS, "other": "x"}},
        {"models": {"base": "x"}},
        {"responses": [*_rows(), _rows()[0]]},
    ],
)
def test_inputs_that_do_not_fit_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"needs both|twice"):
        _report(**changes)


def test_the_page_holds_the_report_exactly() -> None:
    report = _report(responses=_rows(EVIL))
    block = _block(render_html(report))
    assert json.loads(block) == json.loads(json.dumps(report))
    assert not set("<>&\u2028\u2029") & set(block)


def test_an_answer_cannot_leave_its_block() -> None:
    page = render_html(_report(responses=_rows(EVIL)))
    assert page.count("<script") == page.count("</script>") == render_html(_report()).count("<script") == 2
    assert "onerror=alert(2)>" not in page
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", page)


def test_the_page_asks_nothing_of_the_network() -> None:
    page = render_html(_report())
    # The name of SVG's namespace is no address: nothing is fetched from it.
    assert set(re.findall(r"(?:https?:)?//[\w.]+[^\s\"')]*", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<link|<img|<iframe|@import|url\(|\bsrc=|fetch\(|XMLHttpRequest", page)
    assert "default-src 'none'" in page


def test_figures_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        render_html(_report(loss=[{"step": 1, "loss": float("nan")}]))


def test_the_page_can_be_used_without_sight_or_mouse() -> None:
    page = render_html(_report())
    for needed in (
        'lang="en"',
        'name="viewport"',
        'role="status"',
        ":focus-visible",
        "prefers-color-scheme: dark",
        "<noscript>",
    ):
        assert needed in page
    for control in re.findall(r"<(?:input|select)[^>]*>", page):
        assert re.search(rf"<label>[^<]*{re.escape(control)}", page)
