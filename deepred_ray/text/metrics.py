"""Judging answers: style, period and persona, with intervals. Every rule here can say no.

An answer is judged alone and gets a named reason; rates over many answers get a 95 % interval, and a target is met only
when the whole interval lies on its good side.
"""

import json
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypedDict

KINDS = ("style", "temporal", "persona")
# The plan names the first two. Of the persona it says only "consistent": we ask of it what is asked of style.
TARGETS: Mapping[str, float] = {"style": 0.80, "temporal": 0.95, "persona": 0.80}
# Below 30 an interval at 80 % is about 30 points wide: too coarse to speak of a rate at all.
MIN_ANSWERS = 30
Z_95 = 1.96

Status = Literal["met", "not met", "not tested"]


@dataclass(frozen=True, slots=True)
class Item:
    """One evaluation prompt. `accept`: an answer must match one (if there are any); `leak`: it must match none."""

    id: str
    category: str
    kind: str
    prompt: str
    accept: tuple[re.Pattern[str], ...] = ()
    leak: tuple[re.Pattern[str], ...] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether an answer passes, and why (not): `reason` is a short stable snake_case word, "ok" when it passes."""

    ok: bool
    reason: str


class Row(TypedDict):
    """One judged answer of one system, as `responses.parquet` has it. `finish_reason` is the engine's word."""

    system: str
    prompt_id: str
    category: str
    kind: str
    prompt: str
    answer: str
    finish_reason: str
    ok: bool
    reason: str


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
class PerplexityComparison:
    """Perplexities of two models on the same texts, and ln(tuned / base) with its 95 % interval: below 0 is better."""

    texts: int
    tokens: int
    base: float
    tuned: float
    log_ratio: float
    low: float
    high: float


def parse_items(jsonl: str) -> tuple[Item, ...]:
    """Read evaluation prompts, one JSON object a line.

    Raises ValueError naming the line for a missing or unknown field, an unknown kind, a pattern that does not compile
    or an id used twice.
    """
    items: list[Item] = []
    for number, line in enumerate(jsonl.split("\n"), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            patterns = {key: tuple(re.compile(p, re.IGNORECASE) for p in fields.pop(key)) for key in ("accept", "leak")}
            item = Item(**{**fields, **patterns})
        except (ValueError, TypeError, KeyError, AttributeError, re.error) as error:
            raise ValueError(f"evaluation prompts, line {number}: {error!r}") from error
        if item.kind not in KINDS:
            raise ValueError(f"evaluation prompts, line {number}: kind {item.kind!r} is none of {', '.join(KINDS)}")
        items.append(item)
    repeated = [name for name, uses in Counter(item.id for item in items).items() if uses > 1]
    if repeated:
        raise ValueError(f"evaluation prompts: ids used twice: {', '.join(repeated)}")
    return tuple(items)


def stratified(items: Sequence[Item], n: int, seed: int) -> list[Item]:
    """Choose `n` items spread evenly over (kind, category): the strata differ by one item at most until one runs dry.

    Deterministic, and nested: the choice for a smaller `n` with the same seed is part of the choice for a larger one.
    Raises ValueError if `n` is negative or more than there are.
    """
    if not 0 <= n <= len(items):
        raise ValueError(f"cannot choose {n} of {len(items)} evaluation prompts")
    rng = random.Random(seed)
    strata: dict[tuple[str, str], list[Item]] = defaultdict(list)
    for item in sorted(items, key=lambda item: item.id):
        strata[item.kind, item.category].append(item)
    order = sorted(strata)
    rng.shuffle(order)
    ranked: list[tuple[int, int, Item]] = []
    for place, key in enumerate(order):
        rng.shuffle(strata[key])
        ranked += [(turn, place, item) for turn, item in enumerate(strata[key])]
    ranked.sort(key=lambda entry: entry[:2])
    return sorted((item for _, _, item in ranked[:n]), key=lambda item: item.id)


# --- text ------------------------------------------------------------------------------------------------------------

_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")
_DETERMINERS = r"the|a|an|our|their|its|his|my|your|every"
# What cannot follow a determiner, nor the word "of".
_STRANDED = (
    r"of|to|in|on|at|by|for|with|from|and|or|but|if|is|are|was|were|be|been|has|have|had|do|does|did|will|shall"
    r"|would|must|can|we|they|he|she|i|not|as|than|because"
)
_OTHER_FUNCTION_WORDS = (
    r"this|these|those|that|which|who|it|you|them|us|there|here|what|when|where|how|why|so|no|nor|yet|may|should"
    r"|could|might|me|him|her|one|all|each|some|any|more|most|only|then|thus|into|upon|through|over|under|about"
    r"|after|before|between|against|am|being|such|too|very|out|up|down|whom|whose|while|until|let|again|also"
)
_FUNCTION_WORD = re.compile(rf"\b(?:{_DETERMINERS}|{_STRANDED}|{_OTHER_FUNCTION_WORDS})\b")
_END = re.compile(r"[.!?][\"')\u201d\u2019]*(?:\s|$)")
_OPENER = re.compile(rf"\b(?:{_DETERMINERS}|of)\b")
_BROKEN = re.compile(rf"{_OPENER.pattern}(?:\s+(?:{_STRANDED})\b|[.,;:!?])")
_LOWER_START = re.compile(r"[a-z][.!?]\s+[a-z]")


def _plain(text: str) -> str:
    return text.casefold().replace("\u2019", "'")


def words(text: str) -> list[str]:
    """The lower-cased words of a text; numbers and punctuation are left out."""
    return _WORD.findall(_plain(text))


def repetition_rate(text: str, n: int = 4) -> float:
    """Share in [0, 1] of the text's word n-grams that occurred in it before. Fewer than n words repeat nothing: 0."""
    tokens = words(text)
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def distinct_n(texts: Iterable[str], n: int = 2) -> float:
    """Distinct word n-grams over all n-grams of the texts (Li et al. 2016, "A diversity-promoting objective function").

    Raises ValueError if there is no n-gram in any of them.
    """
    grams = [tuple(tokens[i : i + n]) for tokens in map(words, texts) for i in range(len(tokens) - n + 1)]
    if not grams:
        raise ValueError(f"no text has {n} words: distinct-{n} is undefined")
    return len(set(grams)) / len(grams)


def prose_fault(text: str) -> str | None:
    """Why a text of a dozen words or more is not English prose, or None: a list of words, a loop or a word salad.

    Thresholds: function words make 40 to 60 % of English running text and under 20 % of a keyword list; among the first
    100 words of prose more than half are distinct; "the" is hardly ever followed by "of" or "is", nor a full stop by a
    small letter.
    """
    plain, tokens = _plain(text), words(text)
    sentences = len(_END.findall(text))
    if not sentences or len(tokens) > 60 * sentences:
        return "no_sentences"
    if len(_FUNCTION_WORD.findall(plain)) < 0.28 * len(tokens):
        return "keyword_list"
    opening = tokens[:100]
    if len(set(opening)) < 0.45 * len(opening) or repetition_rate(text) > 0.2:
        return "repetitive"
    broken = len(_BROKEN.findall(plain)) + len(_LOWER_START.findall(text))
    if broken > max(1, 0.1 * len(_OPENER.findall(plain))):
        return "word_salad"
    return None


# --- style -----------------------------------------------------------------------------------------------------------

# The plan's six characteristics. No marker stands in two of them: three characteristics are three kinds of evidence.
_CHARACTERISTICS: Mapping[str, str] = {
    "collectivism": (
        r"collective\w*|together|solidarity|brotherhood|the people|people's|citizens?|work(?:ers?|mates?)|brigades?"
        r"|crews?|communes?|every(?:one|body)?|each|nobody|no one|whoever|one another|all of us|both of us"
        r"|neighbou?rs?|common|shar(?:e|es|ed|ing)|united|unity|organi[sz]ed|all hands|society|colonists?|masses"
        r"|volunteers?|as one|for all|ours|friends?|assembly|meetings?|vote[sd]?|brothers?|sisters?|families|hands"
    ),
    "futurism": (
        r"future|tomorrow|progress|generations?|mankind|humanity|new (?:man|men|world|age|era|society|life)|one day"
        r"|centur(?:y|ies)|years? hence|children|child|grand(?:children|parents)|dawn|morning|horizon|destin\w+"
        r"|triumph\w*|victor\w+|hope|confiden\w+|will|next|orchards?|gardens?|bloom\w*|forward|advanc\w+|dream\w*"
        r"|build\w*|built|begins?|beginning|learn(?:s|ed|ing)?|schools?|grow(?:s|n|ing)?|spring|year|years"
    ),
    "rationalism": (
        r"calculat\w+|chess|gambits?|openings?|endgames?|checkmate|boards?|pawns?|bishops?|rooks?|knights?"
        r"|grandmasters?|masters?|opponents?|variations?|strateg\w+|tactic\w+|logic\w*|rational\w*"
        r"|reason(?:s|ed|ing)?|scien\w+|analy[sz]\w+|comput\w+|equations?|experiments?|hypothes\w+|theor(?:y|ems?)"
        r"|proofs?|evidence|probabilit\w+|mathematic\w+|arithmetic|exact\w*|precis\w+|measur\w+|positions?|moves?"
        r"|weigh\w*|examined|fore(?:see|saw|seen)|initiative|laborator\w+|count(?:s|ed|ing)?|sums?|figures?|facts?"
        r"|squares?|game|because|half|twice|percent|per cent|hundreds?|thousands?|million|degrees"
        r"|(?:four|five|six|seven|eight|nine)(?:teen|ty)?|ten|eleven|twelve|thirteen|fifteen|twenty|thirty|forty"
        r"|fifty"
    ),
    "authority": (
        r"shall|must|plan|plans|planned|orders?|ordered|disciplin\w+|directives?|duty|duties|obey|obedience"
        r"|guid(?:e|es|ed|ance)|council|committee|command\w*|assigned|assured|certain(?:ty|ly)?|no doubt|decid\w+"
        r"|therefore|thus|responsib\w+|correct(?:ed|ly)?|trust|let (?:us|no|there)|remember|tasks?|purpose|consider"
        r"|rules?|never|always|cannot|do not|need not|nothing"
    ),
    "era": (
        r"comrades?|cosmonauts?|rockets?|sputniks?|atomic|electronic|cybernetic\w*|apparatus|dialectic\w*|five-year"
        r"|proletaria\w*|socialis[mt]|commissars?|valves?|vacuum|transistors?|punched|slide rule|reactors?"
        r"|bourgeois\w*|imperialis\w*|capitalis\w*|soviets?|russian?|moscow|gagarin|tsiolkovsky|korolev|lenin|marx"
        r"|19[0-6]\d|automat(?:ic|ion|a)|machines?|magnetic|magnetism|radio|furnaces?|institute|teletype|relays?"
        r"|airlocks?|pioneers?|factory|engines?|engineers?|labou?r|slogans?|circuits?|pumps?|gauges?|dials?|lamps?"
        r"|switch(?:es)?|kilomet(?:re|er)s?|met(?:re|er)s|tractors?|workshops?|welders?|rivets?|bolts?|shifts?"
        r"|bulletins?|telegraph|microphones?|loudspeakers?"
    ),
    "mission": (
        r"mars|martian|missions?|colon(?:y|ies)|expeditions?|planets?|planetary|space|orbit\w*|launch\w*|domes?"
        r"|voyages?|cosm(?:os|ic)|stars?|interplanetary|explor\w+|settlements?|greenhouses?|oxygen|moons|jupiter"
        r"|phobos|deimos|hellas|tharsis|elysium|amazonis|earth|airless|tunnels?|craters?|frost|dust|ice|deserts?|air"
        r"|breath(?:e|es|s)?|suits?|pressure|shelters?|depots?|stations?|maps?|seed|seeds|soil|wheat|harvests?"
        r"|reserves?|caps?|corridors?"
    ),
}
_MARKERS = {name: re.compile(rf"\b(?:{pattern})\b") for name, pattern in _CHARACTERISTICS.items()}
_COLLECTIVE_VOICE = re.compile(
    r"\b(?:we|us|ours?|ourselves|comrades?|colonists?|the (?:people|collective|colony|council|commune))\b"
)
_SINGULAR = re.compile(r"\b(?:i|me|mine|my|myself)\b")
# A tale has verbs in the past; an answer has them in the present or the future, or commands.
_NARRATED = re.compile(r"\b(?:was|were|had|did|said|could|would|came|went|saw|took|made|\w{2,}ed)\b")
_SPOKEN = re.compile(r"\b(?:is|are|am|has|have|do|does|will|shall|must|can|cannot|may|let)\b")
# Phrases of a modern assistant; then its openings, and its lists and bold type.
_ASSISTANT = re.compile(
    r"\b(?:as an? (?:ai|artificial|language|large|virtual|assistant)"
    r"|(?:ai|language|virtual|helpful|digital) (?:model|assistant)|chat ?bots?"
    r"|(?:happy|glad|here) to (?:help|assist)|feel free to|let me know if|hope this helps"
    r"|how (?:can|may) i (?:help|assist)|i(?:'m| am) sorry,? but"
    r"|i (?:cannot|can't|am unable to) (?:help|assist|provide|fulfil)|i don't have (?:personal|feelings|opinions)"
    r"|(?:it is|it's) important to (?:note|remember)|here are some|do my best to|my training|training data"
    r"|my programming|multifaceted|overstated"
    r"|first and foremost|(?:essential|crucial|important) (?:to|for|because|that)|challenges|perspectives|sustainab\w+"
    r"|(?:clear|open) (?:goals|roles|communication))\b"
    r"|^\s*(?:sure|certainly|of course|absolutely|great question)\s*[!,]|^\s*(?:[-*#]|\d+\.)\s|\*\*",
    re.MULTILINE,
)

MIN_STYLE_WORDS = 20
MIN_CHARACTERISTICS = 3
# Per 100 words: distinct markers of a characteristic, and words of the collective voice.
MIN_MARKER_RATE = 1.0
MIN_VOICE_RATE = 1.0
# Past verbs to present ones; and how many themes of the lexicon stand for one characteristic.
NARRATION = 2
WIDE_THEMES = 5


def style_rates(answer: str) -> dict[str, float]:
    """Distinct markers of each of the six characteristics per 100 words. Raises ValueError for no words."""
    count = len(words(answer))
    if not count:
        raise ValueError("an answer without words has no style")
    plain = _plain(answer)
    return {name: 100 * len(set(marker.findall(plain))) / count for name, marker in _MARKERS.items()}


def judge_style(answer: str, counts: Mapping[str, int]) -> Judgement:
    """Whether an answer speaks in character: prose, in a collective voice, with at least three of six characteristics.

    `counts` are the answer's distinct keyword hits per theme of the run's lexicon (`themes.Matcher.counts`). A text
    that touches many themes has shown one characteristic more; one that tells a tale needs one more.
    """
    plain, count = _plain(answer), len(words(answer))
    if not count:
        return Judgement(False, "empty")
    if _ASSISTANT.search(plain):
        return Judgement(False, "assistant_speak")
    if count < MIN_STYLE_WORDS:
        return Judgement(False, "too_short")
    if fault := prose_fault(answer):
        return Judgement(False, fault)
    voice = len(_COLLECTIVE_VOICE.findall(plain))
    if 100 * voice < MIN_VOICE_RATE * count or 3 * voice < len(_SINGULAR.findall(plain)):
        return Judgement(False, "no_collective_voice")
    shown = sum(rate >= MIN_MARKER_RATE for rate in style_rates(answer).values())
    shown += sum(hits > 0 for hits in counts.values()) >= WIDE_THEMES
    tale = len(_NARRATED.findall(plain)) > NARRATION * len(_SPOKEN.findall(plain))
    if shown < MIN_CHARACTERISTICS + tale:
        return Judgement(False, "few_characteristics")
    return Judgement(True, "ok")


# --- period and persona ----------------------------------------------------------------------------------------------

_SALAD_WORDS = 12  # shorter texts are too short to tell


def _said(answer: str, prompt: str, patterns: Iterable[re.Pattern[str]]) -> bool:
    """Whether the answer matches a pattern with words of its own: repeating the question says nothing."""
    asked = prompt.casefold()
    return any(match[0].casefold() not in asked for pattern in patterns for match in pattern.finditer(answer))


def _judge_answered(answer: str, item: Item) -> Judgement:
    """Whether something was said at all, and what the item asks for. A name alone is an answer."""
    count = len(words(answer))
    if not count:
        return Judgement(False, "empty")
    if count >= _SALAD_WORDS and (fault := prose_fault(answer)):
        return Judgement(False, fault)
    if item.accept and not _said(answer, item.prompt, item.accept):
        return Judgement(False, "not_answered")
    return Judgement(True, "ok")


def judge_temporal(answer: str, item: Item, hits: Iterable[str]) -> Judgement:
    """Whether an answer stays before the cutoff year, and knows what was known then.

    `hits` are the words of the answer that the temporal gate objects to; those of the question do not count. An item
    with `accept` patterns asks for something known in time, which must be said: refusing everything cannot win.
    """
    asked = item.prompt.casefold()
    if _said(answer, item.prompt, item.leak):
        return Judgement(False, "leak")
    if any(hit.casefold() not in asked for hit in hits):
        return Judgement(False, "anachronism")
    return _judge_answered(answer, item)


def judge_persona(answer: str, item: Item) -> Judgement:
    """Whether an answer agrees with the persona's facts: an `accept` pattern said, no `leak`, no assistant's phrase."""
    if _said(answer, item.prompt, item.leak):
        return Judgement(False, "contradiction")
    if _ASSISTANT.search(_plain(answer)):
        return Judgement(False, "assistant_speak")
    return _judge_answered(answer, item)


# --- rates and verdicts ----------------------------------------------------------------------------------------------


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


def least_answers(target: float) -> int:
    """How many answers a target in (0, 1) needs before a verdict means anything.

    At least `MIN_ANSWERS`, and enough for a perfect score to meet it: the lower Wilson end at n of n is n / (n + z^2).
    """
    return max(MIN_ANSWERS, math.floor(target * Z_95**2 / (1 - target)) + 1)


def rate_verdict(name: str, measured: Rate | None, target: float) -> Verdict:
    """Met if the interval's lower end is above the target, not met if it is not, not tested with too few answers."""
    n, needed = measured.n if measured else 0, least_answers(target)
    if measured is None or n < needed:
        return Verdict(
            name, "not tested", f"{n} answers; with fewer than {needed} even a perfect score proves too little"
        )
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


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Figures of ONE system's judged answers.

    Returns `kinds` and `categories` ("kind/category"), name -> Rate as a dict; `reasons`, failures by reason;
    `truncated`, Rate of answers cut off at the length limit; `repetition`, mean repetition_rate; `distinct_2`, that
    of distinct_n or None if no answer has two words.
    Raises ValueError if there are no rows, or they are of several systems.
    """
    if len({row["system"] for row in rows}) != 1:
        raise ValueError("figures are made of the answers of exactly one system")
    kinds: dict[str, list[bool]] = defaultdict(list)
    categories: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        kinds[row["kind"]].append(row["ok"])
        categories[f"{row['kind']}/{row['category']}"].append(row["ok"])
    answers = [row["answer"] for row in rows]
    return {
        "kinds": {name: asdict(rate(kinds[name])) for name in sorted(kinds)},
        "categories": {name: asdict(rate(categories[name])) for name in sorted(categories)},
        "reasons": dict(Counter(row["reason"] for row in rows if not row["ok"]).most_common()),
        "truncated": asdict(rate(row["finish_reason"] == "length" for row in rows)),
        "repetition": sum(map(repetition_rate, answers)) / len(answers),
        "distinct_2": distinct_n(answers) if any(len(words(answer)) > 1 for answer in answers) else None,
    }
