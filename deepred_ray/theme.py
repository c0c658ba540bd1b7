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
from deepred_ray.text.items import KINDS, Item, parse_items
from deepred_ray.text.personas import Component, Persona, parse_components, parse_personas
from deepred_ray.text.phrasebook import Phrasebook, parse_axes, parse_openings, parse_questions, parse_requests, parse_voice
from deepred_ray.text.rubric import Axis, parse_rubric
from deepred_ray.text.selection import Category, Work, parse_categories, parse_works
from deepred_ray.text.style import StyleRules, parse_style
from deepred_ray.text.themes import Scorer, parse_lexicon

SHIPPED = Path(__file__).parent / "data" / "themes"
EVALUATION = tuple(f"evaluation/{kind}.jsonl" for kind in KINDS)
REFERENCE = ("evaluation/persona.txt", "evaluation/neutral.txt", "evaluation/prose.txt")
# The files that decide what a stage's rows are; a change of one makes an existing run stale.
STAGE_FILES: Mapping[str, tuple[str, ...]] = {
    "acquire": ("theme.toml", "priority_works.tsv", "subjects.txt", "categories.toml"),
    "corpus": ("lexicon.tsv", "relevance.toml"),
    "synthesize": (
        "theme.toml",
        "components.toml",
        "personas.toml",
        "axes.toml",
        "requests.toml",
        "rubric.toml",
        "voice.jsonl",
        "questions.tsv",
        "frames.txt",
        "followups.txt",
        "topics.txt",
        "openings.toml",
        "lexicon.tsv",
        "common.txt",
        "anachronisms.tsv",
        *EVALUATION,
    ),
    "evaluate": (*EVALUATION, *REFERENCE, "theme.toml", "personas.toml", "style.toml", "voice.jsonl", "anachronisms.tsv"),
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

    def lines(self, file: str) -> tuple[str, ...]:
        """The lines of a file that are not empty."""
        return tuple(line for line in self.read(file).split("\n") if line)

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
        return self.lines("subjects.txt")

    @cached_property
    def scorer(self) -> Scorer:
        return Scorer(parse_lexicon(self.read("lexicon.tsv")), tomllib.loads(self.read("relevance.toml")))

    def keywords_in(self, text: str) -> set[str]:
        """The plan's keywords in a text, of all themes."""
        return {word for words in self.scorer.hits(text).values() for word in words}

    @cached_property
    def personas(self) -> dict[str, Persona]:
        return parse_personas(self.read("personas.toml"))

    @property
    def system(self) -> str:
        """The system prompt of the first persona, the theme's own voice."""
        return next(iter(self.personas.values())).system[0]

    @cached_property
    def components(self) -> tuple[Component, ...]:
        return parse_components(self.read("components.toml"), self.personas)

    @cached_property
    def phrasebook(self) -> Phrasebook:
        return Phrasebook(
            personas=self.personas,
            axes=parse_axes(self.read("axes.toml")),
            voice=parse_voice(self.read("voice.jsonl"), self.personas),
            questions=parse_questions(self.read("questions.tsv")),
            frames=self.lines("frames.txt"),
            followups=self.lines("followups.txt"),
            topics=frozenset(self.lines("topics.txt")),
            openings=parse_openings(self.read("openings.toml")),
            requests=parse_requests(self.read("requests.toml")),
            common=self.common,
        )

    @cached_property
    def common(self) -> frozenset[str]:
        """Stems that stand in so many old passages that they do not show which one a text is from."""
        return frozenset(self.lines("common.txt"))

    @property
    def unspoken(self) -> tuple[str, ...]:
        """Words that the persona never says, which an engine can be kept from."""
        return tuple(self.facts["identity"].get("unspoken", ()))

    @cached_property
    def era(self) -> Gate:
        return Gate(parse_terms(self.read("anachronisms.tsv")), self.cutoff_year)

    @cached_property
    def style(self) -> StyleRules:
        return parse_style(self.read("style.toml"))

    @cached_property
    def rubric(self) -> tuple[Axis, ...]:
        """What a judge model scores by."""
        return parse_rubric(self.read("rubric.toml"))

    @cached_property
    def evaluation(self) -> tuple[Item, ...]:
        """The evaluation prompts, kind by kind. Raises ValueError for a malformed file."""
        return parse_items("\n".join(self.read(file) for file in EVALUATION))

    def reference(self, name: str) -> tuple[str, ...]:
        """Texts that style is measured against: `persona`, `neutral` (modern) or `prose` (of before the cutoff); a paragraph
        each."""
        paragraphs = self.read(f"evaluation/{name}.txt").split("\n\n")
        return tuple(" ".join(paragraph.split()) for paragraph in paragraphs if paragraph.strip())

    def hashes(self) -> dict[str, str]:
        """Stage -> hash of the theme's files that its rows depend on."""
        return {
            stage: hashlib.sha256("\0".join(self.read(file) for file in files).encode()).hexdigest()[:16]
            for stage, files in STAGE_FILES.items()
        }
