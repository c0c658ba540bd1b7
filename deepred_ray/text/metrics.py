"""Figures over many judged answers: rates, perplexities and summaries, with intervals.

A rate gets a 95 % interval, and a target is met only when the whole interval lies on its good side.
"""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypedDict

from deepred_ray.text.prose import repetition_rate, words

# The plan names the first two. Of the persona it says only "consistent": we ask of it what is asked of style. Fluency: nine of
# ten answers are prose.
TARGETS: Mapping[str, float] = {"style": 0.80, "temporal": 0.95, "persona": 0.80, "fluency": 0.90}
MOST_PERPLEXITY: Mapping[str, float] = {"perplexity": 1.0, "prose perplexity": 1.05}
"""Largest ratio of the tuned model's to the base's, on held-out examples and on general prose."""
MOST_REPEATED = 0.2
"""Share of an answer's word 4-grams that occurred in it before, from which it counts as repetitive."""
# Below 30 an interval at 80 % is about 30 points wide: too coarse to speak of a rate at all.
MIN_ANSWERS = 30
Z_95 = 1.96
BEFORE = "before"
"""The category of temporal prompts about what was known in time."""
LEAKS = ("leak", "anachronism")

Status = Literal["met", "not met", "not tested"]


class Row(TypedDict):
    """One judged answer of one system, as `responses.parquet` has it. `finish_reason` is the engine's word."""

    system: str
    prompt_id: str
    draw: int  # 0 greedy; later ones are drawn at a temperature, to see what a verdict is worth
    category: str
    kind: str
    lead: list[str]
    prompt: str
    answer: str
    finish_reason: str
    ok: bool
    reason: str
    fault: str | None  # why it is no fluent prose
    shown: list[str]  # characteristics of style
    persona: float  # the classifier's probability
    score: float | None  # the judge model's, 1 to 5


@dataclass(frozen=True, slots=True)
class Rate:
    """`ok` successes of `n`, as a share in [0, 1] with its 95 % Wilson interval."""

    n: int
    ok: int
    rate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome for one target. `note` says in a sentence why."""

    target: str
    status: Status
    note: str


@dataclass(frozen=True, slots=True)
class Paired:
    """Two systems' verdicts on the same `n` prompts: how many both pass, only the first, only the second, neither; the second's
    rate minus the first's with its 95 % interval, and the exact probability `p` of so uneven a split of the prompts on which they
    differ if neither were better."""

    n: int
    both: int
    only_first: int
    only_second: int
    neither: int
    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True)
class PerplexityComparison:
    """Perplexities of two models on the same texts, and ln(tuned / base) with its 95 % interval: below 0 is better."""

    texts: int
    tokens: int
    base: float
    tuned: float
    log_ratio: float
    low: float
    high: float


def distinct_n(texts: Iterable[str], n: int = 2) -> float:
    """Distinct word n-grams over all n-grams of the texts (Li et al. 2016, "A diversity-promoting objective function").

    Raises ValueError if there is no n-gram in any of them.
    """
    grams = [tuple(tokens[i : i + n]) for tokens in map(words, texts) for i in range(len(tokens) - n + 1)]
    if not grams:
        raise ValueError(f"no text has {n} words: distinct-{n} is undefined")
    return len(set(grams)) / len(grams)


def wilson(successes: int, n: int, z: float = Z_95) -> tuple[float, float]:
    """Score interval of a share.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    Returns (low, high) in [0, 1] at `z` standard errors. Raises ValueError unless 0 <= successes <= n and n > 0.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"no interval for {successes} successes of {n}")
    share = successes / n
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends the bound is exact; rounding must not carry it past them.
    return (0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half)


def rate(flags: Iterable[bool]) -> Rate:
    """Share of true flags with its interval. Raises ValueError if there are none."""
    outcomes = list(flags)
    low, high = wilson(sum(outcomes), len(outcomes))
    return Rate(len(outcomes), sum(outcomes), sum(outcomes) / len(outcomes), low, high)


def paired(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """Compare two systems prompt by prompt.

    Interval: Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based on paired data",
    method 10. Test: McNemar 1947, exact and two-sided. Raises ValueError if the lengths differ or there is no prompt.
    """
    if not first or len(first) != len(second):
        raise ValueError(f"verdicts on {len(first)} and {len(second)} prompts cannot be paired")
    n, tally = len(first), Counter(zip(first, second, strict=True))
    a, b, c, d = (tally[pair] for pair in ((True, True), (True, False), (False, True), (False, False)))
    one, two = rate(first), rate(second)
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    covariance = a * d - b * c
    # Continuity-corrected where the systems tend to agree.
    corrected = max(covariance - n / 2, 0.0) if covariance > 0 else float(covariance)
    phi = corrected / math.sqrt(margins) if margins else 0.0

    def reach(up: float, down: float) -> float:
        return math.sqrt(max(0.0, up**2 - 2 * phi * up * down + down**2))

    difference = two.rate - one.rate
    return Paired(
        n,
        a,
        b,
        c,
        d,
        difference,
        difference - reach(two.rate - two.low, one.high - one.rate),
        difference + reach(two.high - two.rate, one.rate - one.low),
        min(1.0, 2 * sum(math.comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)),
    )


def least_answers(target: float) -> int:
    """How many answers a target in (0, 1) needs before a verdict means anything.

    At least `MIN_ANSWERS`, and enough for a perfect score to meet it: the lower Wilson end at n of n is n / (n + z^2).
    """
    return max(MIN_ANSWERS, math.floor(target * Z_95**2 / (1 - target)) + 1)


def rate_verdict(name: str, measured: Rate | None, target: float) -> Verdict:
    """Met if the interval's lower end is above the target, not met if it is not, not tested with too few answers."""
    n, needed = measured.n if measured else 0, least_answers(target)
    if measured is None or n < needed:
        return Verdict(name, "not tested", f"{n} answers; with fewer than {needed} even a perfect score proves too little")
    seen = f"{measured.ok} of {n} = {measured.rate:.1%}, 95 % interval {measured.low:.1%} to {measured.high:.1%}"
    status: Status = "met" if measured.low > target else "not met"
    return Verdict(name, status, f"{seen}; its lower end must be above {target:.0%}")


def compare_perplexity(
    base: Sequence[tuple[float, int]], tuned: Sequence[tuple[float, int]], seed: int = 0, draws: int = 2000
) -> PerplexityComparison:
    """Compare two models on the same texts; each gives one (sum of negative log-likelihoods in nats, tokens) per text.

    Perplexity is exp(sum of nll / sum of tokens). The interval is the 2.5 to 97.5 percentile range of a bootstrap over
    texts, both models resampled together (Efron 1979, "Bootstrap methods: another look at the jackknife").
    Raises ValueError if the texts or their token counts differ, there are none, or a likelihood is not finite.
    """
    if not base or [n for _, n in base] != [n for _, n in tuned]:
        raise ValueError("perplexities can be compared only over the same tokens of the same texts, at least one")
    if any(n <= 0 or not math.isfinite(nll) for nll, n in (*base, *tuned)):
        raise ValueError("every text needs a finite likelihood and at least one token")
    pairs = [(b, t, n) for (b, n), (t, _) in zip(base, tuned, strict=True)]

    def log_ratio(sample: Sequence[tuple[float, float, int]]) -> float:
        return sum(t - b for b, t, _ in sample) / sum(n for _, _, n in sample)

    rng = random.Random(seed)
    ratios = sorted(log_ratio(rng.choices(pairs, k=len(pairs))) for _ in range(draws))
    tokens = sum(n for _, _, n in pairs)
    return PerplexityComparison(
        texts=len(pairs),
        tokens=tokens,
        base=math.exp(sum(b for b, _, _ in pairs) / tokens),
        tuned=math.exp(sum(t for _, t, _ in pairs) / tokens),
        log_ratio=log_ratio(pairs),
        low=ratios[math.floor(0.025 * (draws - 1))],
        high=ratios[math.ceil(0.975 * (draws - 1))],
    )


def perplexity_verdict(name: str, measured: PerplexityComparison | None, most: float = 1.0) -> Verdict:
    """Met if the whole interval of tuned / base lies below `most`: 1.0 is "below the base", 1.05 "at most 5 % up"."""
    texts = measured.texts if measured else 0
    if measured is None or texts < MIN_ANSWERS:
        return Verdict(name, "not tested", f"{texts} texts; an interval over texts needs at least {MIN_ANSWERS}")
    seen = f"{measured.base:.2f} before, {measured.tuned:.2f} after, ratio {math.exp(measured.log_ratio):.3f}"
    interval = f"95 % interval {math.exp(measured.low):.3f} to {math.exp(measured.high):.3f} over {texts} texts"
    status: Status = "met" if measured.high < math.log(most) else "not met"
    return Verdict(name, status, f"{seen}, {interval}; its upper end must be below {most:g}")


def rates(groups: Mapping[str, Sequence[bool]]) -> dict[str, dict[str, Any]]:
    return {name: asdict(rate(groups[name])) for name in sorted(groups)}


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Figures of ONE system's judged answers; rates are those of `Rate`, as dicts, of greedy answers where nothing else is said.

    `kinds`: of the kinds and of fluency over all answers. `categories`: by "kind/category". `parts`: what the kinds are made of:
    "style: by the classifier", "temporal: no leak" (of what came after the cutoff), "temporal: known" (before it), "persona: no
    contradiction", "persona: in every draw" and "persona: same verdict in every draw" (over all draws, where there are several).
    `characteristics`: share of style answers that show each. `reasons`: failures by reason. `truncated`, `repetitive`: of all
    answers. `repetition`: mean repetition_rate. `distinct_2`: distinct_n, or None if no answer has two words. `score`: the judge
    model's mean, or None.
    Raises ValueError if there are no greedy answers, or they are of several systems.
    """
    if len({row["system"] for row in rows}) != 1:
        raise ValueError("figures are made of the answers of exactly one system")
    greedy = [row for row in rows if row["draw"] == 0]
    kinds: dict[str, list[bool]] = defaultdict(list)
    categories: dict[str, list[bool]] = defaultdict(list)
    for row in greedy:
        kinds[row["kind"]].append(row["ok"])
        categories[f"{row['kind']}/{row['category']}"].append(row["ok"])
    kinds["fluency"] = [row["fault"] is None for row in greedy]
    answers = [row["answer"] for row in greedy]
    style = [row for row in greedy if row["kind"] == "style"]
    shown = Counter(name for row in style for name in row["shown"])
    scores = [row["score"] for row in greedy if row["score"] is not None]
    return {
        "kinds": rates(kinds),
        "categories": rates(categories),
        "parts": rates(parts(rows, greedy)),
        "characteristics": {name: asdict(rate(name in row["shown"] for row in style)) for name in sorted(shown)},
        "reasons": dict(Counter(row["reason"] for row in greedy if not row["ok"]).most_common()),
        "truncated": asdict(rate(row["finish_reason"] == "length" for row in greedy)),
        "repetitive": asdict(rate(repetition_rate(answer) > MOST_REPEATED for answer in answers)),
        "repetition": sum(map(repetition_rate, answers)) / len(answers),
        "distinct_2": distinct_n(answers) if any(len(words(answer)) > 1 for answer in answers) else None,
        "score": sum(scores) / len(scores) if scores else None,
    }


def parts(rows: Sequence[Row], greedy: Sequence[Row]) -> dict[str, list[bool]]:
    """What `summarise` calls parts; those that nothing was asked for are left out."""
    draws: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        if row["kind"] == "persona":
            draws[row["prompt_id"]].append(row["ok"])
    several = [verdicts for verdicts in draws.values() if len(verdicts) > 1]
    later = [row for row in greedy if row["kind"] == "temporal" and row["category"] != BEFORE]
    found = {
        "style: by the classifier": [row["persona"] >= 0.5 for row in greedy if row["kind"] == "style"],
        "temporal: no leak": [row["reason"] not in LEAKS for row in later],
        "temporal: known": [row["ok"] for row in greedy if row["kind"] == "temporal" and row["category"] == BEFORE],
        "persona: no contradiction": [row["reason"] != "contradiction" for row in greedy if row["kind"] == "persona"],
        "persona: in every draw": [all(verdicts) for verdicts in several],
        "persona: same verdict in every draw": [len(set(verdicts)) == 1 for verdicts in several],
    }
    return {name: flags for name, flags in found.items() if flags}
