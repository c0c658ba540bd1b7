"""The figures must be right."""

import math
import random

import pytest

from deepred_ray.text import metrics
from deepred_ray.text.metrics import Rate, Row


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


def _row(system: str, prompt_id: str, ok: bool, **fields: str) -> Row:
    kind, category, _ = prompt_id.split("-")
    answer = fields.get("answer", "We go on, comrade.")
    return Row(
        system=system, prompt_id=prompt_id, category=category, kind=kind, prompt="How?", answer=answer,
        finish_reason=fields.get("finish_reason", "stop"), ok=ok, reason="ok" if ok else "leak",
    )  # fmt: skip


def test_summary() -> None:
    rows = [_row("a", "style-plan-1", True), _row("a", "style-plan-2", False, finish_reason="length")]
    summary = metrics.summarise([*rows, _row("a", "persona-era-1", True, answer="")])
    assert Rate(**summary["kinds"]["style"]).rate == 0.5
    assert set(summary["categories"]) == {"style/plan", "persona/era"}
    assert summary["reasons"] == {"leak": 1}
    assert (summary["truncated"]["ok"], summary["truncated"]["n"]) == (1, 3)
    for bad in ([], [*rows, _row("b", "style-plan-1", True)]):
        with pytest.raises(ValueError, match="one system"):
            metrics.summarise(bad)
