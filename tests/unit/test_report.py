"""The report's figures and its page: complete, safe and self-contained."""

import json
import re
from dataclasses import asdict
from typing import Any

import pytest

from deepred_ray.report import build_report, render_html
from deepred_ray.text.metrics import Row, compare_perplexity, rate

MODELS = {"base": "tiny", "base + prompt": "tiny with a system prompt", "tuned": "tiny with adapter"}
EVIL = "</script><script>alert(1)</script><!-- & \u2028 \u2029 @@REPORT@@ <img src=x onerror=alert(2)>"


def _row(system: str, name: str, ok: bool, **changes: Any) -> Row:
    row = Row(
        system=system,
        prompt_id=name,
        draw=0,
        category="one",
        kind=name.partition("-")[0],
        lead=[],
        prompt="Why?",
        answer="We go on together.",
        finish_reason="stop",
        ok=ok,
        reason="ok" if ok else "leak",
        fault=None,
        shown=[],
        persona=0.5,
        score=None,
    )
    return Row(**{**row, **changes})


def _rows(**changes: Any) -> list[Row]:
    """80 prompts of style and 80 of time: `tuned` passes 49 of each, the others 21, two of them where it fails."""
    return [
        _row(system, f"{kind}-{number:03}", number > 30 if system == "tuned" else number > 60 or number in (4, 5), **changes)
        for system in MODELS
        for kind in ("style", "temporal")
        for number in range(80)
    ]


def _report(**changes: Any) -> dict[str, Any]:
    inputs: dict[str, Any] = {
        "run": "demo",
        "models": MODELS,
        "responses": _rows(),
        "perplexities": {"perplexity": compare_perplexity([(30.0, 10)] * 40, [(25.0, 10)] * 40), "prose perplexity": None},
        "classifier": {"texts": {"neutral": 10}, "overall": asdict(rate([True, True])), "sources": {}},
        "contaminated": ["style-099"],
        "loss": [{"step": 1, "loss": 3.0, "val_loss": 3.1}, {"step": 2, "loss": 2.0, "val_loss": None}],
        "lineage": [{"stage": "acquire", "unit": "books", "rows_in": 6, "kept": 5, "rejected": {"language": 1}, "seconds": 2.0}],
        "versions": {"ray": "2.60.0"},
    }
    return build_report(**{**inputs, **changes})


def _block(page: str) -> str:
    found = re.findall(r'<script type="application/json" id="report">(.*?)</script>', page, re.DOTALL)
    assert len(found) == 1
    return str(found[0])


def test_every_target_has_a_verdict() -> None:
    verdicts = [(verdict["target"], verdict["status"]) for verdict in _report()["verdicts"]]
    assert verdicts == [
        ("style", "not met"),
        ("temporal", "not met"),
        ("persona", "not tested"),
        ("fluency", "met"),
        ("perplexity", "met"),
        ("prose perplexity", "not tested"),
    ]
    unmeasured = _report(perplexities=None)
    assert [verdict["status"] for verdict in unmeasured["verdicts"][-2:]] == ["not tested", "not tested"]
    assert unmeasured["perplexities"] == {}


@pytest.mark.parametrize(("log_ratio", "status"), [(0.03, "met"), (0.06, "not met")])
def test_prose_may_become_a_little_harder(log_ratio: float, status: str) -> None:
    # ln 1.05 = 0.0488, over texts that all say the same.
    comparison = compare_perplexity([(30.0, 10)] * 40, [(30.0 + 10 * log_ratio, 10)] * 40)
    report = _report(perplexities={"perplexity": comparison, "prose perplexity": comparison})
    assert [verdict["status"] for verdict in report["verdicts"][-2:]] == ["not met", status]
    assert report["perplexities"]["prose perplexity"]["log_ratio"] == pytest.approx(log_ratio)


def test_the_last_system_is_judged() -> None:
    report = _report()
    assert report["judged"] == "tuned"
    assert report["metrics"]["tuned"]["kinds"]["style"]["ok"] == 49
    assert list(report["metrics"]) == list(MODELS)
    turned = _report(models=dict(reversed(MODELS.items())))
    assert turned["judged"] == "base"
    assert {comparison["second"] for comparison in turned["comparisons"]} == {"base"}


@pytest.mark.parametrize(("faults", "status"), [(4, "met"), (20, "not met")])
def test_fluency_is_judged_over_all_answers(faults: int, status: str) -> None:
    rows = _rows()
    for row in [row for row in rows if row["system"] == "tuned"][:faults]:
        row["fault"] = "repetitive"
    report = _report(responses=rows)
    assert report["metrics"]["tuned"]["kinds"]["fluency"]["ok"] == 160 - faults
    assert {verdict["target"]: verdict["status"] for verdict in report["verdicts"]}["fluency"] == status


def test_systems_are_compared_on_the_prompts_that_both_answered() -> None:
    # On 8 prompts: both pass 1, only base 1, only tuned 5, neither 1; a ninth was asked of base alone.
    base = [True, True, False, False, False, False, False, False, True]
    tuned = [True, False, True, True, True, True, True, False]
    rows = [_row("base", f"style-{n}", ok) for n, ok in enumerate(base)]
    rows += [_row("tuned", f"style-{n}", ok, fault="empty" if n < 2 else None) for n, ok in enumerate(tuned)]
    # A retest is no second prompt.
    rows.append(_row("tuned", "style-7", True, draw=1))
    style, fluency = _report(models={"base": "x", "tuned": "y"}, responses=rows)["comparisons"]
    assert (style["first"], style["second"], style["kind"], fluency["kind"]) == ("base", "tuned", "style", "fluency")
    tallies = ("n", "both", "only_first", "only_second", "neither")
    assert [style[key] for key in tallies] == [8, 1, 1, 5, 1]
    assert style["difference"] == pytest.approx((6 - 2) / 8)
    # Of 6 that differ at most one is base's: 2 (1 + 6) / 2^6.
    assert style["p"] == pytest.approx(14 / 64)
    # The Wilson intervals are 0.0715 to 0.5907 of 2/8 and 0.4093 to 0.9285 of 6/8; phi is (1 - 5) / 12.
    assert style["low"] == pytest.approx(0.5 - (0.3407**2 + 2 / 3 * 0.3407**2 + 0.3407**2) ** 0.5, abs=1e-3)
    assert style["high"] == pytest.approx(0.5 + (0.1785**2 + 2 / 3 * 0.1785**2 + 0.1785**2) ** 0.5, abs=1e-3)
    assert [fluency[key] for key in tallies] == [8, 6, 2, 0, 0]
    assert fluency["difference"] == pytest.approx(-0.25)
    assert fluency["p"] == pytest.approx(0.5)


def test_every_other_system_is_compared_kind_by_kind() -> None:
    compared = [(comparison["first"], comparison["kind"]) for comparison in _report()["comparisons"]]
    assert compared == [(system, kind) for system in ("base", "base + prompt") for kind in ("style", "temporal", "fluency")]


def test_worst_cases_come_first() -> None:
    order = [case["id"] for case in _report()["cases"]]
    assert order[:4] == ["style-004", "style-005", "temporal-004", "temporal-005"]
    assert order[4] == "style-000"
    assert order[-1] == "temporal-079"
    assert len(order) == 160


def test_retests_are_filed_under_their_case() -> None:
    said: dict[str, Any] = {"lead": ["Good evening."], "prompt": "Who are you?", "shown": ["duty"], "persona": 0.25, "score": 4.0}
    rows = [
        _row("tuned", "persona-1", False, draw=2, answer="A chat bot."),  # whatever the order of the rows
        _row("tuned", "persona-1", True, answer="Deep Red.", finish_reason="length", **said),
        _row("tuned", "persona-1", True, draw=1, answer="We are Deep Red."),
    ]
    report = _report(models={"tuned": "x"}, responses=rows)
    assert report["comparisons"] == []
    assert report["metrics"]["tuned"]["parts"]["persona: in every draw"]["ok"] == 0
    (case,) = report["cases"]
    assert (case["kind"], case["category"], case["lead"], case["prompt"]) == ("persona", "one", ["Good evening."], "Who are you?")
    assert case["answers"] == {
        "tuned": {
            "answer": "Deep Red.",
            "ok": True,
            "reason": "ok",
            "finish_reason": "length",
            "fault": None,
            "shown": ["duty"],
            "persona": 0.25,
            "score": 4.0,
            "retests": [
                {"answer": "We are Deep Red.", "ok": True, "reason": "ok"},
                {"answer": "A chat bot.", "ok": False, "reason": "leak"},
            ],
        }
    }


def test_what_else_was_measured_is_passed_on() -> None:
    report = _report()
    assert report["classifier"]["texts"] == {"neutral": 10}
    assert report["contaminated"] == ["style-099"]
    assert report["loss"][1] == {"step": 2, "loss": 2.0, "val_loss": None}
    assert report["lineage"][0]["rejected"] == {"language": 1}
    assert report["versions"] == {"ray": "2.60.0"}
    assert list(report["perplexities"]) == ["perplexity"]


@pytest.mark.parametrize(
    "changes",
    [
        {"models": {}},
        {"responses": []},
        {"models": {**MODELS, "other": "x"}},
        {"models": {"base": "x"}},
        {"responses": [*_rows(), _rows()[0]]},
        {"responses": [*_rows(), *[_row("tuned", "style-000", True, draw=1)] * 2]},
    ],
)
def test_inputs_that_do_not_fit_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"needs both|twice"):
        _report(**changes)


def test_the_page_holds_the_report_exactly() -> None:
    report = _report(responses=_rows(answer=EVIL, lead=[EVIL], shown=[EVIL]))
    block = _block(render_html(report))
    assert json.loads(block) == json.loads(json.dumps(report))
    assert not set("<>&\u2028\u2029") & set(block)


def test_an_answer_cannot_leave_its_block() -> None:
    page = render_html(_report(responses=_rows(answer=EVIL)))
    assert page.count("<script") == page.count("</script>") == render_html(_report()).count("<script") == 2
    assert "onerror=alert(2)>" not in page
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", page)


def test_the_page_asks_nothing_of_the_network() -> None:
    page = render_html(_report())
    # The name of SVG's namespace is no address: nothing is fetched from it.
    assert set(re.findall(r"(?:https?:)?//[\w.]+[^\s\"')]*", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<link|<img|<iframe|@import|url\(|\bsrc=|fetch\(|XMLHttpRequest", page)
    assert "default-src 'none'" in page


@pytest.mark.parametrize("figure", [float("nan"), float("inf")])
def test_figures_that_are_not_numbers_are_refused(figure: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        render_html(_report(loss=[{"step": 1, "loss": figure}]))


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
