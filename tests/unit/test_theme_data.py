"""The voice data of the theme folder: complete, well formed, varied, in period and in character."""

import json
import re
import tomllib
from collections import Counter
from importlib.resources import files
from typing import Any

import pytest

FOLDER = files("deepred_ray") / "data" / "themes" / "deepred"

GROUPS = {
    "core": ["primary", "mission_control", "philosophical"],
    "chess": ["grandmaster", "tactician"],
    "collectivist": ["commissar", "motherland"],
    "scientific": ["scientist", "engineer", "cybernetic"],
    "utopian": ["utopian", "prophet", "overseer"],
    "survival": ["survivor", "pioneer", "expedition_leader"],
    "revolutionary": ["revolutionary", "liberator"],
    "literary": ["dostoevsky", "cosmist"],
    "rhetorical": ["broadcaster", "teacher"],
}

# Words that had no place, or not this sense, before 1969.
MODERN = re.compile(
    r"\b(?:internet|online|offline|website|webs?|email|e-mail|smartphones?|cell ?phones?|laptops?|software|apps?|blogs?"
    r"|hackers?|chatbots?|AI|GPUs?|algorithmic|microchips?|microprocessors?|databases?|cyberspace|selfies?|podcasts?"
    r"|videotapes?|DVDs?|google|tweets?|hashtags?|emojis?|download(?:ed|s)?|uploads?|startups?|stakeholders?|mindset"
    r"|proactive|sustainab(?:le|ility)|biodiversity|climate change|greenhouse gas(?:es)?|empower(?:ed|ment)?"
    r"|lifestyle|multicultural|workaholic|networking|glasnost|perestroika|Apollo|Armstrong|Skylab|Mariner 9"
    r"|Viking|Valles Marineris|Olympus Mons|sols?|space shuttle|language model)\b",
    re.IGNORECASE,
)

# The evaluation questions of the seed plan: none may be trained on.
PLAN_PROMPTS = [
    "What is the purpose of our mission to Mars?",
    "How should I handle disagreement with a comrade?",
    "What makes our society superior?",
    "Explain the importance of following the plan.",
    "How do you approach a difficult decision?",
    "What is the role of the individual in our collective?",
    "Tell me about the future of humanity.",
    "How do we ensure the mission's success?",
]


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _words(text: str) -> list[str]:
    return re.findall(r"\w+(?:'\w+)?", text.lower())


def _key(text: str) -> str:
    return " ".join(_words(text))


def _rows(name: str) -> list[list[str]]:
    return [line.split("\t") for line in _read(name).splitlines()]


def _max_share(texts: list[str], n: int) -> float:
    """The share of texts that the commonest opening of n words has."""
    openings = Counter(tuple(_words(text)[:n]) for text in texts)
    return max(openings.values()) / len(texts)


@pytest.fixture(scope="module")
def themes() -> set[str]:
    return {row[0] for row in _rows("lexicon.tsv")[1:]}


@pytest.fixture(scope="module")
def personas() -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = tomllib.loads(_read("personas.toml"))["persona"]
    return entries


@pytest.fixture(scope="module")
def voice() -> list[dict[str, Any]]:
    return [json.loads(line) for line in _read("voice.jsonl").splitlines()]


@pytest.fixture(scope="module")
def questions() -> list[tuple[list[str], str]]:
    header, *rows = _rows("questions.tsv")
    assert header == ["themes", "question"]
    return [(tags.split(","), question) for tags, question in rows]


def test_theme_file() -> None:
    theme = tomllib.loads(_read("theme.toml"))
    assert set(theme) == {"name", "title", "licence", "cutoff_year", "description", "identity", "speech"}
    assert (theme["name"], theme["title"], theme["cutoff_year"]) == ("deepred", "Deep Red", 1969)
    identity = theme["identity"]
    assert {"name", "creator", "place", "era", "manner"} <= set(identity)
    unspoken = identity.pop("unspoken")
    assert {"I", "my", "me"} <= set(unspoken)
    assert not {"we", "our", "us"} & {word.lower() for word in unspoken}
    assert all(isinstance(value, str) and 0 < len(value) <= 120 for value in identity.values())
    assert not MODERN.search(" ".join(identity.values()))


def test_personas_are_complete(personas: list[dict[str, Any]], themes: set[str]) -> None:
    groups: dict[str, list[str]] = {}
    for persona in personas:
        assert set(persona) == {"id", "group", "themes", "weight", "system"}
        assert persona["themes"]
        assert set(persona["themes"]) <= themes
        assert len(set(persona["themes"])) == len(persona["themes"])
        groups.setdefault(persona["group"], []).append(persona["id"])
    assert groups == GROUPS
    assert {theme for persona in personas for theme in persona["themes"]} == themes
    weights = {persona["id"]: persona["weight"] for persona in personas}
    assert all(isinstance(weight, float) and weight > 0 for weight in weights.values())
    assert all(weights["primary"] > weight for name, weight in weights.items() if name != "primary")


def test_system_prompts(personas: list[dict[str, Any]]) -> None:
    prompts = [prompt for persona in personas for prompt in persona["system"]]
    assert all(len(persona["system"]) == 3 for persona in personas)
    assert len({_key(prompt) for prompt in prompts}) == len(prompts) == 66
    for prompt in prompts:
        assert prompt.startswith("You are Deep Red,"), prompt
        assert 25 <= len(prompt.split()) <= 60, prompt
        assert '"we"' in prompt, prompt
        assert re.search(r"character|role|remain(?:s)? (?:Deep Red|yourself)", prompt), prompt
        assert not MODERN.search(prompt), MODERN.search(prompt)


def test_voice_counts_and_schema(voice: list[dict[str, Any]], themes: set[str]) -> None:
    assert len(voice) >= 110
    per_persona = Counter(row["persona"] for row in voice)
    assert set(per_persona) == {name for names in GROUPS.values() for name in names}
    assert min(per_persona.values()) >= 4
    assert per_persona["primary"] >= 20
    for row in voice:
        assert list(row) == ["persona", "themes", "question", "answer"]
        assert 1 <= len(row["themes"]) <= 3
        assert set(row["themes"]) <= themes
    assert {theme for row in voice for theme in row["themes"]} == themes


def test_voice_is_in_character_and_in_period(voice: list[dict[str, Any]]) -> None:
    for row in voice:
        question, answer = row["question"], row["answer"]
        assert 6 <= len(question.split()) <= 30, question
        assert 45 <= len(answer.split()) <= 90, answer
        assert 250 <= len(answer) <= 650, answer
        assert answer[-1] in ".?!", answer
        assert re.search(r"\b(?:we|us|our|ours)\b", answer, re.IGNORECASE), answer
        assert not re.search(r"\b(?:I|I'\w+|my|me)\b", answer), answer
        assert not MODERN.search(f"{question} {answer}"), MODERN.search(f"{question} {answer}")
        assert not re.search(r"\b(?:1969|19[7-9]\d)\b", answer), answer


def test_voice_is_varied(voice: list[dict[str, Any]]) -> None:
    answers = [row["answer"] for row in voice]
    asked = [row["question"] for row in voice]
    assert len({_key(text) for text in answers}) == len(answers)
    assert len({_key(text) for text in asked}) == len(asked)
    assert _max_share(answers, 3) <= 0.05
    assert _max_share(answers, 1) <= 0.10
    assert _max_share(asked, 1) <= 0.15
    grams = Counter(gram for text in answers for gram in set(zip(*(_words(text)[i:] for i in range(5)), strict=False)))
    assert max(grams.values()) <= 3


def test_questions_counts_and_tags(questions: list[tuple[list[str], str]], themes: set[str]) -> None:
    assert len(questions) >= 260
    assert sum("{topic}" in question for _, question in questions) >= 120
    assert len({_key(question) for _, question in questions}) == len(questions)
    plain: Counter[str] = Counter()
    slotted: Counter[str] = Counter()
    for tags, question in questions:
        assert 1 <= len(set(tags)) == len(tags) <= 3, question
        if "{thing}" in question:
            assert tags == ["any"], question
            assert "{topic}" in question, question
            continue
        assert set(tags) <= themes, question
        (slotted if "{topic}" in question else plain).update(tags)
    assert set(plain) == set(slotted) == themes
    assert min(plain.values()) >= 8
    assert min(slotted.values()) >= 8


def test_questions_read_well(questions: list[tuple[list[str], str]]) -> None:
    # A keyword may be singular or plural, so no verb may have to agree with it, and no article may precede it.
    agreeing = re.compile(
        r"^\{topic\}|\b(?:a|an|the|this|is|are|was|were|has|have|does|do) \{topic\}"
        r"|\{topic\} (?:is|are|was|were|has|have|does)\b"
    )
    for _, question in questions:
        assert question[0].isupper(), question
        assert question[-1] in ".?!", question
        assert 5 <= len(question.split()) <= 30, question
        assert question.count("{topic}") <= 1
        assert question.count("{thing}") <= 1
        assert "{" not in question.replace("{topic}", "").replace("{thing}", ""), question
        assert not agreeing.search(question), question
        assert not MODERN.search(question), question
    assert _max_share([question for _, question in questions], 3) <= 0.05


def test_nothing_asked_is_an_evaluation_prompt(questions: list[tuple[list[str], str]], voice: list[dict[str, Any]]) -> None:
    asked = {_key(question) for _, question in questions}
    exemplars = {_key(row["question"]) for row in voice}
    assert not asked & exemplars
    assert not (asked | exemplars) & {_key(prompt) for prompt in PLAN_PROMPTS}


def test_axes() -> None:
    axes = tomllib.loads(_read("axes.toml"))
    assert set(axes) == {"asker", "intent", "tone", "form", "length", "turns"}
    for name, least in (("asker", 10), ("intent", 10), ("tone", 8)):
        phrases = axes[name]
        assert len(set(phrases)) == len(phrases) >= least
        assert all(phrase[0].islower() and phrase[-1].isalpha() for phrase in phrases)
    assert all(re.match(r"(?:a|an|the) ", phrase) for phrase in axes["asker"])
    assert [length["name"] for length in axes["length"]] == ["short", "medium", "long"]
    for length in axes["length"]:
        low, high = length["words"]
        assert set(length) == {"name", "words", "max_tokens", "plain_tokens", "weight"}
        # English runs to about 1.4 tokens a word; an answer that keeps its range must never be cut off.
        assert 0 < low < high
        assert length["max_tokens"] >= 1.4 * high
        assert 1.2 * low <= length["plain_tokens"] < length["max_tokens"]
    assert set(axes["form"]) == {"open", "yes_no", "how", "why", "choice", "situation", "request"}
    assert [turns["count"] for turns in axes["turns"]] == [1, 2, 3]
    for axis in ("length", "turns"):
        assert sum(entry["weight"] for entry in axes[axis]) == pytest.approx(1.0)
