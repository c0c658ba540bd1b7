"""The model card: every figure where it belongs, the licence of the base or that none is told."""

from pathlib import Path

import pytest

from deepred_ray.config import Config
from deepred_ray.runs import Manifest
from deepred_ray.stages.modelcard import card, licence, loss_rows
from deepred_ray.theme import Theme

THEME = Theme.find("deepred")
TRAIN = Manifest(
    "train", "examples", 82, 80, {"too_long": 2}, 1.0, outputs={"base": "/some/where", "steps": 15, "trained_tokens": 4321},
    versions={"torch": "2.13.0", "peft": "0.21.0"},
)  # fmt: skip
SYNTHESIZE = Manifest("synthesize", "attempts", 101, 80, {"ungrounded": 21}, 1.0, outputs={"model": "some/writer"})
EXPORT = Manifest(
    "export", "files", 1, 1, {}, 1.0,
    outputs={
        "merge": {"largest_logit_difference": 0.0123},
        "gguf": {
            "q8_0": {
                "bytes": 3 << 20, "top1_agreement": 0.975, "tokens": 120, "token_ids_equal": 246, "texts": 248,
                "perplexity": 12.6, "perplexity_merged": 12.0,
            }
        },
    },
)  # fmt: skip
LOSSES = [(1, 3.25, None), (2, 3.0, None), (10, 2.5, 2.75), (15, 2.4, 2.625)]


def test_a_card_has_base_data_settings_losses_and_lineage() -> None:
    text = card("mars", Config(run="mars"), THEME, {"synthesize": SYNTHESIZE, "train": TRAIN}, LOSSES, None, "apache-2.0")
    header = text.split("---")[1].splitlines()
    assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct" in header
    assert "license: apache-2.0" in header
    assert "80 conversations, machine-made (some/writer) from old books. 4,321 of their tokens count" in text
    assert "15 optimizer steps" in text
    assert "| rank | 32 |" in text
    assert "| learning_rate | 5e-05 |" in text
    assert "| 10 | 2.500 | 2.750 |" in text
    assert f"| train | 82 | 80 | 2 | {TRAIN.fingerprint[:12]} |" in text
    assert "peft 0.21.0, torch 2.13.0" in text
    assert "/some/where" not in text, "a folder of this machine tells a reader nothing"
    assert "## GGUF" not in text
    assert "## Evaluation" not in text


def test_export_evaluation_and_an_unknown_licence_are_told() -> None:
    report = {"verdicts": [{"target": "style", "status": "not met", "note": "12 of 20"}]}
    text = card("mars", Config(model="you/yours"), THEME, {"train": TRAIN, "export": EXPORT}, LOSSES, report, None)
    assert "license:" not in text
    assert "The base's folder tells no licence" in text
    assert "80 conversations. 4,321" in text
    assert "| q8_0 | 3 MiB | 97.5% of 120 | 246 of 248 | 12.60 (+5.0%) |" in text
    assert "differ by 0.0123 at most" in text
    assert "| style | not met | 12 of 20 |" in text


def test_the_first_the_last_and_the_validated_steps_are_shown() -> None:
    assert loss_rows(LOSSES) == [(1, "3.250", ""), (10, "2.500", "2.750"), (15, "2.400", "2.625")]
    assert loss_rows([(1, 3.0, None)]) == [(1, "3.000", "")]
    assert loss_rows([]) == []


@pytest.mark.parametrize(
    ("readme", "told"),
    [
        ("---\nlicense: mit\nlanguage: en\n---\n# A model", "mit"),
        ("---\nlanguage: en\n---\nlicense: mit", None),
        ("# A model\nlicense: mit", None),
        (None, None),
    ],
)
def test_the_licence_is_that_of_the_bases_own_card(tmp_path: Path, readme: str | None, told: str | None) -> None:
    if readme is not None:
        (tmp_path / "README.md").write_text(readme)
    assert licence(str(tmp_path)) == told


def test_the_embedded_models_licence_is_known_and_an_unknown_ones_not() -> None:
    assert licence("smollm2") == "apache-2.0"
    assert licence("nobody/nothing") is None
