"""A theme: one folder of data files, named by one setting, that says whose voice and which period it is."""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from deepred_ray.errors import InputError
from deepred_ray.text.anachronism import Gate, parse_terms
from deepred_ray.text.judging import Item, StyleRules, parse_items, parse_style
from deepred_ray.text.personas import Component, Persona, parse_components, parse_personas
from deepred_ray.text.prompts import Axes, Exchange, Question, parse_axes, parse_openings, parse_questions, parse_voice
from deepred_ray.text.selection import Category, Work, parse_categories, parse_works
from deepred_ray.text.themes import Scorer, parse_lexicon

SHIPPED = Path(__file__).parent / "data" / "themes"
# The files that decide what a stage's rows are; a change of one makes an existing run stale.
STAGE_FILES: Mapping[str, tuple[str, ...]] = {
    "acquire": ("theme.toml", "priority_works.tsv", "subjects.txt", "categories.toml"),
    "corpus": ("lexicon.tsv", "relevance.toml"),
    "synthesize": (
        "components.toml",
        "personas.toml",
        "axes.toml",
        "voice.jsonl",
        "questions.tsv",
        "topics.txt",
        "openings.toml",
        "anachronisms.tsv",
    ),
    "evaluate": ("evaluation.jsonl", "style.toml", "anachronisms.tsv"),
}


@dataclass(frozen=True)
class Theme:
    """Files are read when first asked for. Raises InputError for a missing or malformed one."""

    folder: Path

    @classmethod
    def find(cls, name: str) -> "Theme":
        folder = SHIPPED / name
        if not folder.is_dir():
            folder = Path(name)
        if not (folder / "theme.toml").is_file():
            shipped = ", ".join(sorted(path.name for path in SHIPPED.iterdir() if path.is_dir()))
            raise InputError(f"no theme {name!r}", f"Name one that ships ({shipped}), or a folder with a theme.toml.")
        return cls(folder)

    def read(self, file: str) -> str:
        try:
            return (self.folder / file).read_text("utf-8")
        except OSError as error:
            raise InputError(f"theme {self.folder.name}: {file}: {error.strerror or error}") from error

    @cached_property
    def facts(self) -> dict[str, Any]:
        return tomllib.loads(self.read("theme.toml"))

    @property
    def cutoff_year(self) -> int:
        return int(self.facts["cutoff_year"])

    @cached_property
    def priority_works(self) -> dict[int, Work]:
        """By Gutenberg id, in the order of the list."""
        return parse_works(self.read("priority_works.tsv"))

    @cached_property
    def categories(self) -> tuple[Category, ...]:
        return parse_categories(self.read("categories.toml"))

    @cached_property
    def subjects(self) -> tuple[str, ...]:
        """Subject headings of the extended corpus."""
        return tuple(line for line in self.read("subjects.txt").splitlines() if line)

    @cached_property
    def scorer(self) -> Scorer:
        return Scorer(parse_lexicon(self.read("lexicon.tsv")), tomllib.loads(self.read("relevance.toml")))

    @cached_property
    def personas(self) -> dict[str, Persona]:
        return parse_personas(self.read("personas.toml"))

    @cached_property
    def components(self) -> tuple[Component, ...]:
        return parse_components(self.read("components.toml"), self.personas)

    @cached_property
    def axes(self) -> Axes:
        return parse_axes(self.read("axes.toml"))

    @cached_property
    def voice(self) -> tuple[Exchange, ...]:
        return parse_voice(self.read("voice.jsonl"), self.personas)

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        return parse_questions(self.read("questions.tsv"))

    @cached_property
    def topics(self) -> frozenset[str]:
        """Keywords that can stand as the topic of a question."""
        return frozenset(self.read("topics.txt").split("\n")) - {""}

    @cached_property
    def openings(self) -> dict[str, tuple[str, ...]]:
        return parse_openings(self.read("openings.toml"))

    @cached_property
    def era(self) -> Gate:
        return Gate(parse_terms(self.read("anachronisms.tsv")), self.cutoff_year)

    @cached_property
    def style(self) -> StyleRules:
        return parse_style(self.read("style.toml"))

    @cached_property
    def evaluation(self) -> tuple[Item, ...]:
        return parse_items(self.read("evaluation.jsonl"))

    def hashes(self) -> dict[str, str]:
        """Stage -> hash of the theme's files that its rows depend on."""
        return {
            stage: hashlib.sha256("\0".join(self.read(file) for file in files).encode()).hexdigest()[:16]
            for stage, files in STAGE_FILES.items()
        }
