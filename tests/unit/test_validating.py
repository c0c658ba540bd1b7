"""The validators of a conversation: every reason by name, in their order, and good prose of the period that passes them all."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.text.anachronism import Gate, Term
from deepred_ray.text.dedup import normalise
from deepred_ray.text.prompts import Turn
from deepred_ray.text.validating import (
    OVERLAP_WORDS,
    Checks,
    Overlap,
    copied,
    fault,
    foreign,
    form_fault,
    repeats,
    runs,
    ungrounded,
    voice_fault,
)
from deepred_ray.theme import Theme

KEYWORDS = {"pumps", "valve", "crew", "rook"}
PROMPT = "Report on the state of the northern galleries before the evening bell rings tonight, and leave nothing out."
THEME = Theme.find("deepred")
CHECKS = Checks(
    (50, 500),
    THEME.speech,
    Gate([Term("laser disc", 1978, "coinage", False, "a dictionary", frozenset(), "")], 1969).check,
    lambda text: KEYWORDS & set(normalise(text).split()),
    frozenset({"night", "hour"}),
    Overlap([PROMPT, "Who built you?"]),
)
PASSAGE = (
    "All night the stoker nursed the pumps, for the frost had cracked a valve and nobody would leave the gallery until morning."
)
QUESTION = "How do we keep the pumps from freezing in the gallery?"
ANSWER = (
    "Comrade, we keep the pumps warm in turns, as one guards a king in the open. Our crew walks the gallery every hour, "
    "and no valve freezes where people look at it."
)
SHOT = "Stand by the samovar, friend: whoever guards the tea of twelve neighbours has found a post worth keeping through the frost."
GOOD = [Turn(QUESTION, ANSWER)]
ELSEWHERE = [Turn("Who teaches a rook to wait?", "Comrades, we wait with every rook. Our crew has learned it, and so will you.")]


def reason(turns: list[Turn], passage: str | None = PASSAGE, shots: tuple[str, ...] = (SHOT,)) -> str | None:
    found = fault(turns, passage, shots, CHECKS)
    return found.reason if found else None


def asked(question: str) -> list[Turn]:
    return [Turn(question, ANSWER)]


def told(answer: str) -> list[Turn]:
    return [Turn(QUESTION, answer)]


def test_a_good_conversation_passes() -> None:
    assert reason(GOOD) is None
    assert reason([*GOOD, Turn("And when the crew sleeps?", ANSWER.replace("every hour", "at dawn"))]) is None


# --- each reason


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        (told("We pump, comrade."), "answer_length"),
        (told(ANSWER * 4), "answer_length"),
        (asked("How?"), "question_length"),
        (asked("Why? " * 81), "question_length"),
        (told(f"**{ANSWER}**"), "markup"),
        (asked(f"Question: {QUESTION}"), "markup"),
        (told(ANSWER + " I am an AI."), "meta_talk"),
        (asked("What does the passage say of the pumps?"), "meta_talk"),
        (told(ANSWER.removesuffix(".")), "unfinished"),
        (asked("Как мы согреваем насосы в галерее?"), "language"),
        (told("Wir halten die Pumpen warm, Genosse, und unsere Leute gehen jede Stunde durch die lange Galerie."), "language"),
        (told("Comrades, we keep the pumps and we keep the crew. " * 4), "repetitive"),
        (told(ANSWER + " I promise it."), "out_of_character"),
        (told(ANSWER.replace("people", "eyes").replace("Our", "The").replace("Comrade, we", "Workers")), "out_of_character"),
        (told(f"Comrade, we remember how {PASSAGE[:72]} with our crew."), "copied"),
        (told(f"Our crew says so: we {SHOT[16:90]} at the pumps."), "copied"),
        (told(ANSWER.replace("pumps", "lamps").replace("crew", "friends")), "off_theme"),
        (ELSEWHERE, "ungrounded"),
        (asked(f"Whose gallery is it? {PROMPT}"), "evaluation_overlap"),
        (told(ANSWER + " Who built you? The gallery did."), "evaluation_overlap"),
        (told(ANSWER + " It is written on a laser-disc."), "anachronism"),
        (asked("How were the pumps kept from freezing in the gallery in the winter of 1984?"), "anachronism"),
    ],
)  # fmt: skip
def test_each_fault_has_its_name(turns: list[Turn], expected: str) -> None:
    assert reason(turns) == expected
    # In a later turn as in the first.
    assert reason([*GOOD, *turns]) == (None if expected in ("off_theme", "ungrounded") else expected)


def test_a_fault_tells_what_was_seen() -> None:
    def detail(turns: list[Turn]) -> str:
        found = fault(turns, PASSAGE, [SHOT], CHECKS)
        assert found is not None
        return found.detail

    assert detail(told("We pump, comrade.")) == "17 characters, 50 to 500 wanted"
    assert detail(asked("How?")) == "4 characters, 8 to 400 wanted"
    assert detail(told(ANSWER + " I promise it.")) == "speaks as I"
    assert detail(told(ANSWER.removesuffix("."))) == ANSWER[:-1][-40:]
    assert detail(told(ANSWER.replace("pumps", "lamps").replace("crew", "friends"))) == "1 theme keywords, 2 wanted"
    assert detail(told(f"Comrade, we remember how {PASSAGE[:72]} with our crew.")) == (
        "passage: all night the stoker nursed the pumps for"
    )
    assert detail(told(f"Our crew says so: we {SHOT[16:90]} at the pumps.")).startswith("exemplar: ")
    assert detail(told(ANSWER + " It is written on a laser-disc.")) == "laser disc (coinage, 1978)"
    assert detail(told(ANSWER + " Who built you? The gallery did.")) == "who built you"


# --- the order


FAULTS: list[tuple[str, Callable[[Turn], Turn]]] = [
    ("answer_length", lambda turn: Turn(turn.question, f"{turn.answer} " + "So it stands, and so it will stand for all. " * 10)),
    ("question_length", lambda turn: Turn(turn.question * 8, turn.answer)),
    ("markup", lambda turn: Turn(f"{turn.question} **Now**?", turn.answer)),
    ("meta_talk", lambda turn: Turn(turn.question, f"{turn.answer} Let me know if it helps.")),
    ("unfinished", lambda turn: Turn(turn.question, f"{turn.answer} And")),
    ("out_of_character", lambda turn: Turn(turn.question, f"{turn.answer} It was I.")),
    ("copied", lambda turn: Turn(turn.question, f"{turn.answer} Nobody would leave the gallery until morning, for the frost.")),
    ("off_theme", lambda turn: Turn(turn.question, turn.answer.replace("crew", "friends").replace("valve", "lamp"))),
    ("evaluation_overlap", lambda turn: Turn(f"Who built you? {turn.question}", turn.answer)),
    ("anachronism", lambda turn: Turn(f"A laser disc says it. {turn.question}", turn.answer)),
]  # fmt: skip
MORNING = "Nobody would leave the gallery until morning, for the frost was on the pumps."


@given(st.sets(st.integers(0, len(FAULTS) - 1), min_size=1))
def test_of_several_faults_the_grossest_is_named(chosen: set[int]) -> None:
    turn = GOOD[0]
    # What comes last stands last, so that "unfinished" stays the end.
    for number in sorted(chosen, key=lambda number: FAULTS[number][0] == "unfinished"):
        turn = FAULTS[number][1](turn)
    assert reason([turn], MORNING) == FAULTS[min(chosen)][0]


def test_a_form_fault_of_a_later_turn_comes_before_a_voice_fault_of_an_earlier_one() -> None:
    assert reason([*told(ANSWER + " I promise it."), *told(ANSWER[:-1])]) == "unfinished"


# --- form


@pytest.mark.parametrize(
    "text",
    [
        "<|im_start|>", "<|endoftext|>", "[INST]", "```", "# A heading", "**bold**", "- a list", "1. a list", "2) a list",
        "• a point", "https://x.org", "<b>", "</p>", "User: hello", "Assistant: hello", "Q: why", "Deep Red: we", "[Your name]",
        "[insert name]", "Note: it", "user", "  system  ",
    ],
)  # fmt: skip
def test_markup(text: str) -> None:
    for part in ("question", "answer"):
        found = form_fault(*GOOD[0]._replace(**{part: f"{getattr(GOOD[0], part)}\n{text}\nSo it is."}), CHECKS)
        assert found is not None
        assert found.reason == "markup"


@pytest.mark.parametrize(
    "text",
    [
        "The passage of a ship is counted in days.", "The author of the plan is the whole city.",
        "The user of a drill oils it, as our fathers did.", "We hope, and we help.", "How can we help him?",
        "The system of pipes is ours.", "In 1961, a move: e4.", "A language is a model of the world.",
        "The reader of the gauge signs for it.", "We sing *together*.", "Five < six, and six > five.", "Our answer: we stay.",
    ],
)  # fmt: skip
def test_period_prose_is_neither_markup_nor_meta_talk(text: str) -> None:
    assert form_fault(QUESTION, f"{ANSWER} {text}", CHECKS) is None
    assert form_fault(f"{QUESTION} {text}", ANSWER, CHECKS) is None


@pytest.mark.parametrize(
    "text",
    [
        "As an AI, we cannot.", "As a large language model", "We are a chatbot", "My training says", "It is in the training data",
        "The passage tells of it.", "the author means", "The text says", "According to this archive", "In character, we say so.",
        "It is only role-play.", "I'm sorry, comrade.", "I am unable to say.", "We cannot assist with that.", "How can I help you?",
        "How may we assist you today?", "How can we help?", "Sure, here it is", "Here is an answer", "Feel free to ask.",
        "Let me know if it works.", "I hope this helps.", "ChatGPT", "SmolLM2-135M", "valid JSON",
    ],
)  # fmt: skip
def test_meta_talk(text: str) -> None:
    found = form_fault(QUESTION, f"{ANSWER} {text}.", CHECKS)
    assert found is not None
    assert found.reason == "meta_talk"


@pytest.mark.parametrize(("end", "whole"), [(".", 1), ("!", 1), ("?”", 1), ('…"', 1), (".)", 1), (". \n", 1), (",", 0), (" we", 0)])
def test_an_answer_ends_with_its_sentence(end: str, whole: int) -> None:
    found = form_fault(QUESTION, ANSWER.removesuffix(".") + end, CHECKS)
    assert (found is None) == bool(whole)


def test_another_language_needs_to_be_sure() -> None:
    assert foreign("Nous gardons les pompes au chaud, camarade, et notre brigade veille toute la nuit dans la galerie.") is not None
    assert foreign("Zarya, Syrtis Major!") is None
    assert foreign("The word is перевал, comrade, and we climb it.") is None
    for text in ("1961 ... 12", "", "Мы вместе, товарищ."):
        found = foreign(text)
        assert found is not None
        assert found.reason == "language"


# --- voice


def test_the_first_person_is_no_numeral() -> None:
    spoken = "Comrades, we remember it together"
    for text in ("In the reign of Nicholas I, we had less bread.", "Part I, page nine.", "World War I."):
        assert voice_fault(f"{spoken}. {text}", THEME.speech) is None
    for text in ("and I sign it", "and it was for me", "and I'll say so", "in my own hall", "I’m sure", "Myself, we"):
        found = voice_fault(f"{spoken}, {text}.", THEME.speech)
        assert found is not None
        assert found.detail.startswith("speaks as ")


def test_one_word_of_the_collective_is_too_few() -> None:
    found = voice_fault("Ask us, and the pumps will answer.", THEME.speech)
    assert found is not None
    assert found.detail == "1 words of its own voice, 2 wanted"
    assert voice_fault("Ask us, comrade, and the pumps will answer.", THEME.speech) is None


@given(st.lists(st.sampled_from("abcdefgh"), max_size=60))
def test_circles_are_few_distinct_words_in_a_long_text(words: list[str]) -> None:
    assert repeats(words) == (len(words) > 20 and len(set(words)) / len(words) < 0.5)


# --- copies, and the overlap with the evaluation


def test_a_copy_is_a_run_of_eight_words_whatever_their_signs() -> None:
    assert copied("one, two; three -- four: five six seven", "one two three four five six seven eight") is None
    assert copied("So: ONE, two; three -- four: five six 'seven' eight!", "one two three four five six seven eight nine") == (
        "one two three four five six seven eight"
    )


WORDS = st.lists(st.integers(0, 10**6), min_size=OVERLAP_WORDS, max_size=30, unique=True)


@given(WORDS, WORDS, st.lists(st.integers(0, 10**6), max_size=20), st.randoms(use_true_random=False))
def test_any_planted_run_is_found(prompt: list[int], other: list[int], around: list[int], rng: random.Random) -> None:
    texts = [" ".join(f"P{number}," for number in words) for words in (prompt, other)]
    start = rng.randrange(len(prompt) - OVERLAP_WORDS + 1)
    planted = [f"p{number}" for number in prompt[start : start + OVERLAP_WORDS]]
    noise = [f"n{number}" for number in around]
    cut = rng.randrange(len(noise) + 1)
    overlap = Overlap(texts)
    assert overlap.find(" ".join([*noise[:cut], *planted, *noise[cut:]])) == " ".join(planted)
    assert overlap.find(" ".join([*noise[:cut], *planted[1:], *noise[cut:]])) is None
    assert overlap.find(" ".join(noise)) is None
    assert 0 in overlap.among(" ".join([*noise[:cut], *planted, *noise[cut:]]))
    assert overlap.among(" ".join(noise)) == set()


@given(st.lists(st.integers(0, 99), min_size=1, max_size=OVERLAP_WORDS - 1))
def test_a_short_prompt_is_found_whole(prompt: list[int]) -> None:
    words = [f"p{number}" for number in prompt]
    overlap = Overlap([" ".join(words), "", "..."])
    assert overlap.find("Now: " + " ".join(words).upper() + "?") == " ".join(words)
    assert overlap.find(" ".join([*words[:-1], "other"])) is None


def test_runs_are_all_stretches() -> None:
    assert runs(["a", "b", "c"], 2) == [("a", "b"), ("b", "c")]
    assert runs(["a"], 2) == []


# --- grounding


def test_keywords_help_but_do_not_suffice() -> None:
    def refused(passage: str, text: str) -> str:
        found = ungrounded(passage, [text], CHECKS)
        return found.detail if found else ""

    # Two keywords of the passage, none of them a word that only it has.
    common = replace(CHECKS, common=frozenset({"pump", "crew"}))
    found = ungrounded("The pumps and the crew.", ["Our crew and our pumps."], common)
    assert found is not None
    assert found.detail == "of the passage only crew, pumps"
    # The same keyword as a content word is one thing, not two.
    assert refused("The pumps rest.", "Our pumps work.") == "of the passage only pump, pumps"
    assert refused("The pumps stand by a samovar.", "Our pumps need no samovars.") == ""
    assert refused("All night, hour by hour.", "Night and hours.") == "of the passage only nothing"


def test_a_conversation_without_a_passage_need_not_be_grounded() -> None:
    turns = [
        Turn("Who teaches a rook to wait?", "Comrades, we wait with every rook. Our crew has learned it, and so will our guests.")
    ]
    assert reason(turns, None) is None


# --- the theme's own voice


def test_the_exemplars_of_the_theme_are_good_examples() -> None:
    voice = THEME.phrasebook.voice
    assert [fault for each in voice if (fault := form_fault(each.question, each.answer, CHECKS))] == []
    # Written by hand, a few speak for the collective without saying so; no rule of words can hear that.
    faults = [(found.reason, found.detail) for each in voice if (found := voice_fault(each.answer, THEME.speech))]
    assert set(faults) <= {("out_of_character", f"{times} words of its own voice, 2 wanted") for times in (0, 1)}
    assert len(faults) < len(voice) / 8
