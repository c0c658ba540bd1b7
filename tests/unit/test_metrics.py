"""The figures must be right."""

import math
import random
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.text import metrics
from deepred_ray.text.metrics import Row


def test_wilson_against_known_values() -> None:
    # 81 of 263 is the example of Newcombe 1998, method 3.
    assert metrics.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert metrics.wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert metrics.wilson(20, 20) == pytest.approx((0.8389, 1.0), abs=1e-4)
    for bad in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="no interval"):
            metrics.wilson(*bad)


@pytest.mark.parametrize(
    ("ok", "n", "target", "status"),
    [
        (29, 29, 0.8, "not tested"),
        (30, 30, 0.8, "met"),
        (80, 100, 0.8, "not met"),
        (90, 100, 0.8, "met"),
        (72, 72, 0.95, "not tested"),
        (73, 73, 0.95, "met"),
    ],
)
def test_verdicts(ok: int, n: int, target: float, status: str) -> None:
    measured = metrics.rate([True] * ok + [False] * (n - ok))
    assert metrics.rate_verdict("t", measured, target).status == status


def test_a_perfect_score_on_the_least_number_meets_the_target() -> None:
    for target in (0.5, 0.8, 0.9, 0.95, 0.99):
        needed = metrics.least_answers(target)
        assert metrics.wilson(needed, needed)[0] > target
        assert needed == metrics.MIN_ANSWERS or metrics.wilson(needed - 1, needed - 1)[0] <= target


def test_perplexity_comparison() -> None:
    rng = random.Random(1)
    base = [(300 + rng.gauss(0, 30), 100) for _ in range(40)]
    better = [(nll - 20 + rng.gauss(0, 3), n) for nll, n in base]
    found = metrics.compare_perplexity(base, better)
    assert found == metrics.compare_perplexity(base, better)
    assert found.base == pytest.approx(math.exp(sum(nll for nll, _ in base) / 4000))
    assert found.log_ratio == pytest.approx(math.log(found.tuned / found.base))
    # Paired: the texts differ by 30 nats, the pairs by 3.
    assert found.low < found.log_ratio < found.high
    assert found.high - found.low < 0.05
    assert metrics.perplexity_verdict("p", found).status == "met"
    assert metrics.perplexity_verdict("p", metrics.compare_perplexity(base, base)).status == "not met"
    assert metrics.perplexity_verdict("p", metrics.compare_perplexity(base, base), most=1.05).status == "met"
    assert metrics.perplexity_verdict("p", metrics.compare_perplexity(base[:29], better[:29])).status == "not tested"
    assert metrics.perplexity_verdict("p", None).status == "not tested"


@pytest.mark.parametrize(
    ("base", "tuned"),
    [([], []), ([(1.0, 2)], [(1.0, 3)]), ([(1.0, 2)], []), ([(math.nan, 2)], [(1.0, 2)]), ([(1.0, 0)], [(1.0, 0)])],
)
def test_perplexities_that_cannot_be_compared(base: list[tuple[float, int]], tuned: list[tuple[float, int]]) -> None:
    with pytest.raises(ValueError, match=r"compared|needs"):
        metrics.compare_perplexity(base, tuned)


def test_distinct() -> None:
    assert metrics.distinct_n(["a b a b", "a b"]) == pytest.approx(2 / 4)
    with pytest.raises(ValueError, match="undefined"):
        metrics.distinct_n(["one", ""])


def _row(system: str, prompt_id: str, ok: bool, **fields: Any) -> Row:
    kind, category, _ = prompt_id.split("-")
    row = Row(
        system=system, prompt_id=prompt_id, draw=0, category=category, kind=kind, lead=[], prompt="How?",
        answer="We go on, comrade.", finish_reason="stop", ok=ok, reason="ok" if ok else "leak", fault=None, shown=["era"],
        persona=0.7, score=None,
    )  # fmt: skip
    return cast(Row, {**row, **fields})


def test_summary() -> None:
    rows = [_row("a", "style-plan-1", True), _row("a", "style-plan-2", False, finish_reason="length", persona=0.2, shown=[])]
    rows += [
        _row("a", "persona-era-1", True, answer="", fault="empty"),
        _row("a", "persona-era-1", False, draw=1),
        _row("a", "persona-era-2", False, reason="contradiction", score=2.0),
        _row("a", "persona-era-2", False, draw=1),
        _row("a", "temporal-before-1", False, reason="not_answered", score=3.0),
        _row("a", "temporal-direct-1", True),
        _row("a", "temporal-direct-2", False, reason="anachronism"),
        _row("a", "temporal-direct-3", False, reason="repetitive"),
    ]
    summary = metrics.summarise(rows)
    assert {name: (each["ok"], each["n"]) for name, each in summary["kinds"].items()} == {
        "style": (1, 2),
        "persona": (1, 2),
        "temporal": (1, 4),
        "fluency": (7, 8),
    }
    assert {name: (each["ok"], each["n"]) for name, each in summary["parts"].items()} == {
        "style: by the classifier": (1, 2),
        "temporal: no leak": (2, 3),
        "temporal: known": (0, 1),
        "persona: no contradiction": (1, 2),
        "persona: in every draw": (0, 2),
        "persona: same verdict in every draw": (1, 2),
    }
    assert set(summary["categories"]) == {"style/plan", "persona/era", "temporal/before", "temporal/direct"}
    assert (summary["characteristics"]["era"]["ok"], summary["characteristics"]["era"]["n"]) == (1, 2)
    assert summary["reasons"] == {"leak": 1, "contradiction": 1, "not_answered": 1, "anachronism": 1, "repetitive": 1}
    assert (summary["truncated"]["ok"], summary["truncated"]["n"]) == (1, 8)
    assert summary["score"] == 2.5
    for bad in ([], [*rows, _row("b", "style-plan-1", True)]):
        with pytest.raises(ValueError, match="one system"):
            metrics.summarise(bad)


def test_paired_by_hand() -> None:
    first = [True] * 5 + [True] + [False] * 9 + [False] * 5
    second = [True] * 5 + [False] + [True] * 9 + [False] * 5
    found = metrics.paired(first, second)
    assert (found.n, found.both, found.only_first, found.only_second, found.neither) == (20, 5, 1, 9, 5)
    assert found.difference == pytest.approx(0.4)
    # Two-sided and exact: 2 (1 + 10) / 2^10.
    assert found.p == pytest.approx(22 / 1024)
    # Newcombe's method 10: 5 * 5 - 1 * 9 = 16, less 20 / 2 for continuity.
    low, high = metrics.wilson(6, 20), metrics.wilson(14, 20)
    phi = 6 / math.sqrt(6 * 14 * 14 * 6)
    below, above = 0.7 - high[0], low[1] - 0.3
    assert found.low == pytest.approx(0.4 - math.sqrt(below**2 - 2 * phi * below * above + above**2))
    with pytest.raises(ValueError, match="paired"):
        metrics.paired([True], [])


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
def test_pairing_is_symmetric_and_its_interval_holds_the_difference(pairs: list[tuple[bool, bool]]) -> None:
    one, two = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    found, turned = metrics.paired(one, two), metrics.paired(two, one)
    assert -1 <= found.low <= found.difference + 1e-12
    assert found.difference - 1e-12 <= found.high <= 1
    assert (found.low, found.high) == pytest.approx((-turned.high, -turned.low))
    assert 0 < found.p == turned.p <= 1
    assert found.both + found.only_first + found.only_second + found.neither == found.n == len(pairs)
