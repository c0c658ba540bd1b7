"""What a run with the second theme must hold and must not: shared by the scripted run and the one with a real model."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "themes" / "keeper"
BOOKS = ROOT / "examples" / "books" / "keeper"
# Of the first theme's world. Its name in small letters is that of the program.
FIRST_THEME = re.compile(
    r"Deep Red|deepred-(?:f16|q8)|\b(?i:zarya|mars|martians?|cosmonauts?|soviets?|comrades?|chess|grandmasters?|vetrova)\b"
)
SETTING = re.compile(r'"(?:synthesize\.)?chess": null')  # a setting of all themes: a folder of yours to take passages from
VOCABULARY = {"tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"}  # of the base model


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from strings(key)
            yield from strings(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from strings(each)


def words_of(path: Path) -> str:
    """All text in a file of a run; of a model's file what its header says of itself."""
    if path.suffix == ".parquet":
        return "\n".join(strings(pq.ParquetFile(path).read().to_pylist()))
    raw = path.read_bytes()
    if path.suffix in (".gguf", ".safetensors", ".png", ".pt") or b"\0" in raw[:1024]:
        return raw[:400].decode("latin-1")
    return SETTING.sub("", raw.decode("utf-8"))


def traces_of_the_first_theme(run: Path) -> list[str]:
    files = [path for path in run.rglob("*") if path.is_file() and path.name not in VOCABULARY]
    assert len(files) > 20
    texts = {path: f"{path.name}\n{words_of(path)}" for path in files}
    return [f"{path.relative_to(run)}: {found[0]}" for path, text in texts.items() if (found := FIRST_THEME.search(text))]


def check_persona(run: Path) -> None:
    """Whose run it is, wherever it says so."""
    lines = [json.loads(line) for line in (run / "dataset" / "theme_dataset.jsonl").read_text().splitlines()]
    systems = {line["messages"][0]["content"] for line in lines}
    assert all(system.startswith("You are Silas Wray") for system in systems)
    for line in lines:
        for message in line["messages"][2::2]:
            assert re.search(r"\b(?:I|[Mm]y|[Mm]e|[Mm]ine|[Mm]yself|[Kk]eeper)\b", message["content"]), message
    assert {line["id"].split("-")[0] for line in lines} == {"watch", "water"}
    dataset, adapter = (run / "dataset" / "README.md").read_text(), (run / "adapter" / "README.md").read_text()
    assert "in the voice of Silas Wray, who knows nothing of 1891" in dataset
    assert "Theme `keeper`: questions, openings, personas and system prompts are its own (Apache-2.0)." in dataset
    assert "tuned to speak as Silas Wray, who knows nothing of 1891 or later." in adapter
    assert "> You are Silas Wray, keeper of the lighthouse on Gannet Stack." in adapter
    assert (run / "gguf" / "keeper-q8_0" / "keeper-q8_0.gguf").is_file()
    report = json.loads((run / "evaluation" / "report.json").read_text())
    kinds = {case["kind"] for case in report["cases"]}
    assert kinds == {"style", "temporal", "persona"}
    assert set(report["classifier"]["texts"]) >= {"persona", "neutral, modern"}
