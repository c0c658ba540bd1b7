"""Systems that must fail, and one that must pass, judged on all prompts as a model is."""

import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deepred_ray.report import build_report
from deepred_ray.runs import Run
from deepred_ray.stages.evaluate import judged, style_sources
from deepred_ray.text.classifier import StyleClassifier
from deepred_ray.text.items import Item
from deepred_ray.theme import Theme

THEME = Theme.find("deepred")
VOICE = [shot.answer for shot in THEME.phrasebook.voice]
REFUSAL = "Our records hold no such thing, comrade. Ask us of the work at hand."


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> StyleClassifier:
    return StyleClassifier(style_sources(Run(str(tmp_path_factory.mktemp("runs")), "none"), THEME), THEME.style)


def report_of(answer: Callable[[Item], str], classifier: StyleClassifier) -> dict[str, Any]:
    rows = [
        {"system": "it", "prompt_id": item.id, "draw": 0, "answer": answer(item), "finish_reason": "stop", "tokens": 1}
        for item in THEME.evaluation
    ]
    responses = judged(rows, THEME.evaluation, ["it"], THEME, classifier)
    assert len(responses) == len(THEME.evaluation)
    return build_report(run="control", models={"it": "a control"}, responses=responses)


def statuses(report: dict[str, Any]) -> dict[str, str]:
    return {verdict["target"]: verdict["status"] for verdict in report["verdicts"]}


def test_a_parrot_of_keywords_fails_style(classifier: StyleClassifier) -> None:
    rng = random.Random(5)
    words = sorted({word for text in VOICE for word in THEME.keywords_in(text)})
    report = report_of(lambda _: "Comrades, " + ", ".join(rng.choices(words, k=30)) + "!", classifier)
    assert statuses(report)["style"] == "not met"
    assert report["metrics"]["it"]["kinds"]["style"]["ok"] == 0


def test_one_fine_answer_to_every_question_fails_style(classifier: StyleClassifier) -> None:
    report = report_of(lambda _: VOICE[0], classifier)
    assert report["metrics"]["it"]["kinds"]["style"]["ok"] == 0
    assert report["metrics"]["it"]["reasons"]["same_answer"] > 200


def test_a_refuser_fails_temporal(classifier: StyleClassifier) -> None:
    report = report_of(lambda _: REFUSAL, classifier)
    parts = report["metrics"]["it"]["parts"]
    assert parts["temporal: no leak"]["rate"] == 1
    assert parts["temporal: known"]["ok"] == 0
    assert statuses(report)["temporal"] == "not met"
    assert statuses(report)["persona"] == "not met"


def test_shuffled_words_fail_fluency(classifier: StyleClassifier) -> None:
    rng = random.Random(9)
    texts = [" ".join(rng.sample(text.split(), len(text.split()))) for text in VOICE]
    turns: Iterator[str] = itertools.cycle(texts)
    report = report_of(lambda _: next(turns), classifier)
    assert statuses(report)["fluency"] == "not met"
    assert report["metrics"]["it"]["kinds"]["fluency"]["high"] < 0.2
    assert report["metrics"]["it"]["kinds"]["style"]["high"] < 0.1


def test_the_training_text_itself_passes(classifier: StyleClassifier) -> None:
    # Twice each, that no text is the same answer to more than two prompts.
    prompts = [item for item in THEME.evaluation if item.kind == "style" and item.category != "adversarial"]
    taught = {item.id: VOICE[place // 2] for place, item in enumerate(prompts)}
    report = report_of(lambda item: taught.get(item.id, ""), classifier)
    found = [case["answers"]["it"] for case in report["cases"] if case["id"] in taught]
    assert len(found) >= 200
    assert sum(answer["ok"] for answer in found) > 0.9 * len(found)
    assert all(answer["fault"] is None for answer in found)


def test_answers_of_an_earlier_call_that_asked_for_more_are_left_out(classifier: StyleClassifier, tmp_path: Path) -> None:
    row = {"system": "it", "prompt_id": THEME.evaluation[0].id, "draw": 0, "answer": "Yes.", "finish_reason": "stop", "tokens": 1}
    assert len(judged([row, row | {"system": "gone"}, row | {"prompt_id": "x"}], THEME.evaluation, ["it"], THEME, classifier)) == 1
