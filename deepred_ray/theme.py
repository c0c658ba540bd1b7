"""A theme: one folder of data files, named by one setting, that says whose voice and which period it is."""

import hashlib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from deepred_ray.errors import InputError
from deepred_ray.text.anachronism import Gate, Term, parse_terms
from deepred_ray.text.items import KINDS, Item, distinct, parse_items
from deepred_ray.text.personas import Component, Persona, parse_components, parse_personas
from deepred_ray.text.phrasebook import Phrasebook, parse_axes, parse_openings, parse_questions, parse_requests, parse_voice
from deepred_ray.text.rubric import Axis, parse_rubric
from deepred_ray.text.selection import Category, Work, parse_categories, parse_works
from deepred_ray.text.speech import Speech, parse_speech
from deepred_ray.text.style import StyleRules, parse_style
from deepred_ray.text.themes import Scorer, parse_lexicon

Parsed = TypeVar("Parsed")
Absent = Literal["needed", "nothing", "common", "added"]

SHIPPED = Path(__file__).parent / "data" / "themes"
COMMON = Path(__file__).parent / "data" / "common"
EVALUATION = tuple(f"evaluation/{kind}.jsonl" for kind in KINDS)
REFERENCE = ("evaluation/persona.txt", "evaluation/neutral.txt", "evaluation/prose.txt")
FILES: Final[Mapping[str, Absent]] = {
    "theme.toml": "needed",
    "lexicon.tsv": "needed",
    "relevance.toml": "needed",
    "personas.toml": "needed",
    "components.toml": "needed",
    "voice.jsonl": "needed",
    "axes.toml": "needed",
    "questions.tsv": "needed",
    "frames.txt": "needed",
    "followups.txt": "needed",
    "topics.txt": "needed",
    "openings.toml": "needed",
    "requests.toml": "needed",
    "rubric.toml": "needed",
    "style.toml": "needed",
    **dict.fromkeys(EVALUATION, "needed"),
    "evaluation/persona.txt": "needed",
    "priority_works.tsv": "nothing",
    "subjects.txt": "nothing",
    "categories.toml": "nothing",
    "common.txt": "common",
    "evaluation/neutral.txt": "common",
    "evaluation/prose.txt": "common",
    "anachronisms.tsv": "added",
}
"""Every file of a theme, and what holds where a folder lacks it: it is `needed`, `nothing` is taken, or the `common` file that all
themes share; to that, the rows of a theme's own file are `added`."""
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
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Theme:
    """`folder` is where it was read; `files` maps the path of each file there to its text. A theme travels whole to other
    nodes, which need not have the folder; what it lacks they take from the package.

    Its properties raise InputError for a missing or malformed file, and name the file and the row.
    """

    folder: str
    files: Mapping[str, str] = field(hash=False, repr=False)

    @classmethod
    def find(cls, name: str) -> "Theme":
        """The theme that ships by this name, else the one in this folder.

        Raises:
            InputError: there is neither, or a file cannot be read or is not UTF-8.
        """
        shipped = sorted(path.name for path in SHIPPED.iterdir() if path.is_dir())
        folder = SHIPPED / name if name in shipped else Path(name).expanduser()
        if not (folder / "theme.toml").is_file():
            raise InputError(
                f"no theme {name!r}",
                f"Name one that ships ({', '.join(shipped)}), or a folder with a theme.toml: absolute, beside the configuration "
                "file that names it, or here.",
            )
        return cls(str(folder), {file: text for file in FILES if (text := read(folder / file, folder.name)) is not None})

    def read(self, file: str) -> str:
        """The theme's own text of a file, else the common one; empty where a theme needs none."""
        if file in self.files:
            return self.files[file]
        if FILES[file] == "needed":
            raise InputError(f"theme {self.folder}: no file {file}", "`deepred check-theme` lists what a theme lacks.")
        return common(file) if FILES[file] == "common" else ""

    def parsed(self, file: str, parse: Callable[[str], Parsed]) -> Parsed:
        """What a file says. Raises InputError that names the file and, where its parser knows it, the row."""
        text = self.read(file)
        try:
            return parse(text)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            told = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise InputError(f"theme {self.folder}: {file}: {told.removeprefix(file).lstrip(',: ')}") from error

    def lines(self, file: str) -> tuple[str, ...]:
        """The lines of a file that are not empty."""
        return tuple(line for line in self.read(file).split("\n") if line)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """theme.toml."""
        return self.parsed("theme.toml", parse_facts)

    @property
    def name(self) -> str:
        """What exported models are called."""
        return str(self.facts["name"])

    @property
    def title(self) -> str:
        """What the persona is called."""
        return str(self.facts["title"])

    @property
    def cutoff_year(self) -> int:
        return int(self.facts["cutoff_year"])

    @cached_property
    def speech(self) -> Speech:
        return self.parsed("theme.toml", lambda _: parse_speech(self.facts))

    @cached_property
    def priority_works(self) -> dict[int, Work]:
        """By Gutenberg id, in the order of the list."""
        return self.parsed("priority_works.tsv", parse_works)

    @cached_property
    def categories(self) -> tuple[Category, ...]:
        return self.parsed("categories.toml", parse_categories)

    @cached_property
    def subjects(self) -> tuple[str, ...]:
        """Subject headings of the extended corpus."""
        return self.lines("subjects.txt")

    @cached_property
    def scorer(self) -> Scorer:
        lexicon = self.parsed("lexicon.tsv", parse_lexicon)
        return self.parsed("relevance.toml", lambda toml: Scorer(lexicon, tomllib.loads(toml)))

    def keywords_in(self, text: str) -> set[str]:
        """The plan's keywords in a text, of all themes."""
        return {word for words in self.scorer.hits(text).values() for word in words}

    @cached_property
    def personas(self) -> dict[str, Persona]:
        return self.parsed("personas.toml", parse_personas)

    @property
    def system(self) -> str:
        """The system prompt of the first persona, the theme's own voice."""
        return next(iter(self.personas.values())).system[0]

    @cached_property
    def components(self) -> tuple[Component, ...]:
        return self.parsed("components.toml", lambda toml: parse_components(toml, self.personas))

    @cached_property
    def phrasebook(self) -> Phrasebook:
        return Phrasebook(
            personas=self.personas,
            axes=self.parsed("axes.toml", parse_axes),
            voice=self.parsed("voice.jsonl", lambda jsonl: parse_voice(jsonl, self.personas)),
            questions=self.parsed("questions.tsv", parse_questions),
            frames=self.lines("frames.txt"),
            followups=self.lines("followups.txt"),
            topics=frozenset(self.lines("topics.txt")),
            openings=self.parsed("openings.toml", parse_openings),
            requests=self.parsed("requests.toml", parse_requests),
            common=self.common,
        )

    @cached_property
    def common(self) -> frozenset[str]:
        """Stems that stand in so many old passages that they do not show which one a text is from."""
        return frozenset(self.lines("common.txt"))

    @property
    def unspoken(self) -> tuple[str, ...]:
        """Words that the persona never says, which an engine can be kept from."""
        return tuple(self.facts.get("identity", {}).get("unspoken", ()))

    @cached_property
    def era(self) -> Gate:
        return Gate(self.terms, self.cutoff_year)

    @property
    def terms(self) -> tuple[Term, ...]:
        """The dated words that all themes share, and the theme's own, which take the place of equal ones."""
        own = self.parsed("anachronisms.tsv", parse_terms) if "anachronisms.tsv" in self.files else ()
        known = {(term.term.lower(), term.case) for term in own}
        return tuple(term for term in shared_terms() if (term.term.lower(), term.case) not in known) + own

    @cached_property
    def style(self) -> StyleRules:
        return self.parsed("style.toml", parse_style)

    @cached_property
    def rubric(self) -> tuple[Axis, ...]:
        """What a judge model scores by."""
        return self.parsed("rubric.toml", parse_rubric)

    @cached_property
    def evaluation(self) -> tuple[Item, ...]:
        """The evaluation prompts, kind by kind."""
        # Each alone, so that an error names its file and the line there.
        items = [item for file in EVALUATION for item in self.parsed(file, parse_items)]
        return self.parsed(EVALUATION[0], lambda _: distinct(items))

    def reference(self, name: str) -> tuple[str, ...]:
        """Texts that style is measured against: `persona`, `neutral` (modern) or `prose` (of before the cutoff); a paragraph
        each."""
        paragraphs = self.read(f"evaluation/{name}.txt").split("\n\n")
        return tuple(" ".join(paragraph.split()) for paragraph in paragraphs if paragraph.strip())

    def hashes(self) -> dict[str, str]:
        """Stage -> hash of the theme's files that its rows depend on, and of the common ones."""

        def content(file: str) -> str:
            return self.read(file) + (common(file) if FILES[file] == "added" else "")

        return {
            stage: hashlib.sha256("\0".join(content(file) for file in files).encode()).hexdigest()[:16]
            for stage, files in STAGE_FILES.items()
        }


def common(file: str) -> str:
    """A file that all themes share."""
    return (COMMON / file).read_text("utf-8")


@cache
def shared_terms() -> tuple[Term, ...]:
    """The dated words that all themes share: tens of thousands."""
    return parse_terms(common("anachronisms.tsv"))


def read(path: Path, theme: str) -> str | None:
    """The text of a file of a theme, None if there is none. Raises InputError if it cannot be read, or is not UTF-8."""
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise InputError(f"theme {theme}: {path.name} is not UTF-8: {error}", "Convert it, for instance with iconv.") from error
    except OSError as error:
        raise InputError(f"theme {theme}: {path.name}: {error.strerror or error}") from error


def parse_facts(toml: str) -> dict[str, Any]:
    """theme.toml: `name`, `title`, `cutoff_year`, `description` and tables. Raises ValueError naming what is missing or wrong."""
    facts = tomllib.loads(toml)
    if missing := [key for key in ("name", "title", "cutoff_year", "description", "speech") if not facts.get(key)]:
        raise ValueError(f"{', '.join(missing)} missing")
    if not isinstance(facts["name"], str) or not NAME.fullmatch(facts["name"]):
        raise ValueError(f"name {facts['name']!r} is to be of letters, digits, dot, dash and underscore: models are called by it")
    if type(facts["cutoff_year"]) is not int or not 1000 <= facts["cutoff_year"] <= 9999:
        raise ValueError(f"cutoff_year {facts['cutoff_year']!r} is not a year")
    return facts
