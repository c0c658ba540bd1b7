"""`deepred check-theme`: what a theme lacks, what contradicts itself, and what its own rules would refuse."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from deepred_ray.checks import Check, show
from deepred_ray.config import Config
from deepred_ray.console import counts_text
from deepred_ray.errors import InputError
from deepred_ray.text.classifier import FOLDS, cut
from deepred_ray.text.items import KINDS
from deepred_ray.text.phrasebook import ANY
from deepred_ray.text.style import LENGTHS
from deepred_ray.text.validating import Overlap
from deepred_ray.theme import FILES, Theme

MOST_SHOWN = 3
DATA = (".toml", ".tsv", ".txt", ".jsonl")
PARTS = (
    *("facts", "speech", "scorer", "personas", "components", "phrasebook", "rubric", "style", "evaluation", "terms"),
    *("priority_works", "categories"),
)


def check(name: str) -> int:
    """Print a line a check; 1 if the theme cannot be used as it is.

    Raises:
        InputError: there is no such theme.
    """
    theme = Theme.find(name)
    return show(list(checks(theme)))


def checks(theme: Theme) -> Iterator[Check]:
    """First the files, each for itself; what they say of one another only if all of them can be read."""
    needed = [file for file, absent in FILES.items() if absent == "needed" and file not in theme.files]
    there = f"{len(theme.files)} of {len(FILES)}, and none is needed besides"
    yield finding("files", needed, "missing", there, "Write them; docs/themes.md says what each holds.")
    shared = [file for file, absent in FILES.items() if absent == "common" and file not in theme.files]
    yield Check("shared files", True, f"taken from what all themes share: {', '.join(shared) or 'nothing'}")
    folder = Path(theme.folder)
    strangers = sorted({str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in DATA} - FILES.keys())
    if strangers:
        yield finding("other files", strangers, "is read by nothing", "", "Remove or rename them.", harmless=True)
    whole = not needed
    for part in PARTS:
        try:
            getattr(theme, part)
        except InputError as error:
            whole = False
            if "no file" not in error.message:
                yield Check(part, False, error.message, "Mend that.")
    if whole:
        for make in (themes_agree, banks_suffice, rules_let_pass, evaluation_suffices):
            yield from make(theme)


def finding(name: str, faults: Sequence[str], what: str, fine: str, cure: str, *, harmless: bool = False) -> Check:
    """A line of `a, b, c and 4 more` and `what` is wrong with them, or of what is `fine`."""
    more = f" and {len(faults) - MOST_SHOWN} more" if len(faults) > MOST_SHOWN else ""
    if not faults:
        return Check(name, True, fine)
    return Check(name, harmless, f"{'; '.join(faults[:MOST_SHOWN])}{more}: {what}", cure)


def themes_agree(theme: Theme) -> Iterator[Check]:
    """Whatever names a theme, a keyword or a group names one that is there."""
    known = theme.scorer.lexicon.themes
    book = theme.phrasebook
    uses = [
        *((f"personas.toml, {persona.id}", persona.themes) for persona in theme.personas.values()),
        *((f"components.toml, {component.id}", component.themes) for component in theme.components),
        *((f"voice.jsonl, line {number}", shot.themes) for number, shot in enumerate(book.voice, 1)),
        *((f"questions.tsv, line {number}", question.themes - {ANY}) for number, question in enumerate(book.questions, 2)),
    ]
    wrong = [f"{where}, {name}" for where, names in uses for name in sorted(names - set(known))]
    yield finding("themes", wrong, "no theme of lexicon.tsv", ", ".join(known), "Name themes of lexicon.tsv.")
    keywords = {word for words in theme.scorer.lexicon.keywords.values() for word in words}
    idle = sorted(book.topics - keywords)
    cure = "No passage brings them up: mark them with plan 1 in lexicon.tsv."
    yield finding("topics", idle, "no keyword of lexicon.tsv", f"{len(book.topics)}", cure, harmless=len(idle) < len(book.topics))
    groups = {persona.group for persona in theme.personas.values()} | {ANY}
    strays = sorted(book.openings.keys() - groups)
    yield finding("openings", strays, "no group of personas.toml", f"of {len(book.openings)} groups", "Name groups, or `any`.")


def banks_suffice(theme: Theme) -> Iterator[Check]:
    """Enough to draw from."""
    book = theme.phrasebook
    blanks = Counter(("{topic}" in question.text, "{thing}" in question.text) for question in book.questions)
    turns = max(book.axes.turns)
    wanted = {
        "questions.tsv, one without blanks": blanks[False, False] > 0,
        "questions.tsv, one with {topic} alone": blanks[True, False] > 0,
        "followups.txt, one for each later turn": len(book.followups) >= turns - 1,
        "openings.toml, one under `any` for each turn": len(book.openings[ANY]) >= turns,
        "frames.txt, each with {thing}": bool(book.frames) and all("{thing}" in frame for frame in book.frames),
        "topics.txt, one": bool(book.topics),
        "voice.jsonl, one of each persona": {shot.persona for shot in book.voice} == set(theme.personas),
    }
    short = [what for what, enough in wanted.items() if not enough]
    there = f"{len(book.questions)} questions, {len(book.voice)} exemplars"
    yield finding("banks", short, "wanted, and not there", there, "Prompts are drawn from these files.")


def rules_let_pass(theme: Theme) -> Iterator[Check]:
    """What is in the theme's own voice, by the theme's own rules. A few misses do no harm."""
    book = theme.phrasebook
    shots = [(f"voice.jsonl, line {number}", shot.answer) for number, shot in enumerate(book.voice, 1)]
    texts = [
        *shots,
        *((f"personas.toml, {persona.id}", text) for persona in theme.personas.values() for text in persona.system),
        *((f"questions.tsv, line {number}", question.text) for number, question in enumerate(book.questions, 2)),
        ("theme.toml, description", str(theme.facts["description"])),
    ]
    later = [f"{where}, {reject.detail}" for where, text in texts if (reject := theme.era.check(text))]
    cure = "A reply in such words is rejected."
    yield finding("period", later, "of a later time", f"nothing later than {theme.cutoff_year - 1}", cure, harmless=True)
    other = [f"{where}, {reject.detail}" for where, text in shots if (reject := theme.speech.fault(text))]
    cure = "A reply like these is rejected: see [speech] in theme.toml."
    yield finding("voice", other, "of another voice", "every exemplar is in it", cure, harmless=len(other) < len(shots) / 2)
    low, high = Config().synthesize.answer_chars
    long = [where for where, text in shots if not low <= len(text) <= high]
    what, fine = f"not of {low} to {high} characters", f"of {low} to {high} characters"
    yield finding("exemplars", long, what, fine, "Models imitate their length.", harmless=True)


def evaluation_suffices(theme: Theme) -> Iterator[Check]:
    """Prompts of each kind that no bank gives away, and enough text to learn the style from."""
    kinds, book = Counter(item.kind for item in theme.evaluation), theme.phrasebook
    lacking = [kind for kind in KINDS if not kinds[kind]]
    yield finding("evaluation", lacking, "no prompt of this kind", counts_text(kinds), "Write some in evaluation/.")
    asked = Overlap(" ".join(item.turns) for item in theme.evaluation)
    banks = [*(question.text for question in book.questions), *(shot.question for shot in book.voice)]
    given = [text for text in banks if asked.find(text)]
    fine, cure = "no prompt of the evaluation is in the banks", "A model must not be asked what it was trained on."
    yield finding("overlap", given, "asked by the evaluation too", fine, cure)
    texts = {name: list(theme.reference(name)) for name in ("persona", "neutral", "prose")}
    texts["persona"] += [shot.answer for shot in book.voice]
    few = [f"evaluation/{name}.txt" for name, each in texts.items() if len(cut(each)) < FOLDS]
    cure = "Write more paragraphs there, with an empty line between."
    yield finding("reference texts", few, f"under {FOLDS} texts", f"{len(texts['persona'])} of the persona", cure)
    if max(len(text.split()) for text in texts["neutral"]) < LENGTHS[-1]:
        yield Check("neutral texts", False, f"none of evaluation/neutral.txt has {LENGTHS[-1]} words", "Add longer ones.")
