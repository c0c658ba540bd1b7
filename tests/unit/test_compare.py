"""Two evaluated runs side by side."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from deepred_ray.cli import main
from deepred_ray.report import build_report
from deepred_ray.text.metrics import Row, compare_perplexity


def write_run(root: Path, name: str, passed: set[int], prompts: range, rate: float) -> None:
    rows = [
        cast(
            Row,
            {
                "system": "tuned",
                "prompt_id": f"style-{number}",
                "draw": 0,
                "category": "plan",
                "kind": "style",
                "lead": [],
                "prompt": f"Question {number}?",
                "answer": "We go on.",
                "finish_reason": "stop",
                "ok": number in passed,
                "reason": "ok" if number in passed else "neutral_style",
                "fault": None,
                "shown": [],
                "persona": 0.5,
                "score": None,
            },
        )
        for number in prompts
    ]
    perplexity = compare_perplexity([(30.0, 10)] * 40, [(25.0 if name == "a" else 20.0, 10)] * 40)
    report = build_report(run=name, models={"tuned": f"{name}'s model"}, responses=rows, perplexities={"perplexity": perplexity})
    (root / name / "evaluation").mkdir(parents=True)
    (root / name / "evaluation" / "report.json").write_text(json.dumps(report))
    (root / name / "config.json").write_text(json.dumps({"run": name, "model": "m", "train": {"learning_rate": rate, "rank": 8}}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_run(tmp_path, "a", {0, 1, 2}, range(10), 1e-4)
    write_run(tmp_path, "b", {0, 2, 3, 4, 5, 99}, range(100), 2e-4)
    return tmp_path


def test_the_same_prompts_are_paired(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "a", "b", "--json", "--data-root", str(root)]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["runs"] == ["a", "b"]
    assert found["judged"] == ["a's model", "b's model"]
    assert found["settings"] == [{"setting": "train.learning_rate", "values": [1e-4, 2e-4]}]
    style = next(row for row in found["kinds"] if row["kind"] == "style")
    assert [rate["n"] for rate in style["rates"]] == [10, 100]
    assert [style["paired"][key] for key in ("n", "both", "only_first", "only_second", "neither")] == [10, 2, 1, 3, 4]
    assert style["paired"]["difference"] == pytest.approx(0.2)
    assert [round(value["tuned"], 2) for value in found["perplexities"][0]["values"]] == [12.18, 7.39]


def test_the_tables_tell_the_same(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["compare", "a", "b", "--data-root", str(root)]) == 0
    printed = capsys.readouterr().out
    assert "train.learning_rate" in printed
    assert "+20.0" in printed
    assert "only common ones are paired" in printed


def test_a_run_that_was_not_evaluated_is_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "c").mkdir()
    (root / "c" / "config.json").write_text("{}")
    assert main(["compare", "a", "c", "--data-root", str(root)]) == 1
    assert "run c was not evaluated" in capsys.readouterr().err
    assert main(["compare", "a", "nowhere", "--data-root", str(root)]) == 1
    assert "no run nowhere" in capsys.readouterr().err
