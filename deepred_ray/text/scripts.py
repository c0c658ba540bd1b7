"""Film scripts: who says what in which scene, from Fountain (fountain.io/syntax) or plain text with the speakers in capitals."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["scene", "action", "dialogue"]

_HIDDEN = re.compile(r"/\*.*?\*/|\[\[.*?\]\]", re.S)  # boneyard, and notes
_SCENE = re.compile(r"(?:INT|EXT|EST|I/E)\.?(?:/(?:INT|EXT)\.?)?[. ]\s*\S|\.(?=\w)", re.I)
_TITLE_PAGE = re.compile(r"(?:Title|Credit|Authors?|Source|Draft date|Contact|Copyright|Notes|Revision)\s*:", re.I)
_TRANSITION = re.compile(r"[A-Z ]+TO:$|(?:FADE|CUT|DISSOLVE)\b[A-Z ]*[.:]?$|>(?!.*<$)")
_NOT_SPOKEN = re.compile(
    r"#|=|={3,}$|\d+\.?$|\(?(?:CONTINUED|MORE)\)?:?(?: \(\d+\))?$"
)  # sections, synopses, page breaks and their marks
# An extension may be in small letters: VETROVA (on the radio).
_CUE = re.compile(r"@(?P<forced>.+)|(?P<name>(?=[^(]*[A-Z])[^a-z:(]{2,40}(?:\([^()]*\)\s*)*\^?)")
_EXTENSION = re.compile(r"\s*\([^)]*\)\s*|\s*\^$")
_PLAY = re.compile(r"(?P<name>[A-Z][A-Z .'’-]{1,30}[A-Z]):\s+(?P<said>\S.*)")
_EMPHASIS = re.compile(r"(?<!\\)(?:\*{1,3}|_)(?=\S)|(?<=\S)(?<!\\)(?:\*{1,3}|_)")


@dataclass(frozen=True, slots=True)
class Element:
    """A scene heading, an action or a speech; `text[start:end]` of the script is where it stands."""

    kind: Kind
    text: str
    speaker: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Elements in a row as one text: speeches as `NAME: words`, actions in parentheses. `title` is the heading of its scene."""

    title: str
    text: str
    start: int
    end: int


def elements(script: str) -> list[Element]:
    """The scenes, actions and speeches of a script, in order; title page, notes and transitions are left out."""
    found: list[Element] = []
    # Blanks of the same length, so that offsets stay those of the file.
    script = _HIDDEN.sub(lambda match: re.sub(r"\S", " ", match[0]), script)
    for start, end in _blocks(script):
        lines = [line.strip() for line in script[start:end].split("\n")]
        lines = [line for line in lines if line and not _NOT_SPOKEN.match(line)]
        if lines and not found and _TITLE_PAGE.match(lines[0]):
            continue
        found += _block(lines, start, end)
    return found


def _blocks(script: str) -> Iterator[tuple[int, int]]:
    """Spans between blank lines."""
    for match in re.finditer(r"[^\n]*\S[^\n]*(?:\n[^\n]*\S[^\n]*)*", script):
        yield match.span()


def _block(lines: list[str], start: int, end: int) -> Iterator[Element]:
    """What one block of lines holds: a heading, a cue with its speech, or action."""
    if not lines:
        return
    first, *rest = lines
    if _SCENE.match(first):
        yield Element("scene", first.lstrip("."), "", start, end)
        yield from _block(rest, start, end)
    elif _TRANSITION.match(first):
        yield from _block(rest, start, end)
    elif _PLAY.fullmatch(first):
        yield from _speeches(lines, start, end)
    elif rest and (cue := _CUE.fullmatch(first.lstrip("!") if first.startswith("@") else first)) and not first.startswith("!"):
        said = " ".join(line.lstrip("~ ") for line in rest if not (line.startswith("(") and line.endswith(")")))
        speaker = _EXTENSION.sub("", cue["forced"] or cue["name"]).strip()
        if said and speaker:
            yield Element("dialogue", plain(said), speaker, start, end)
    else:
        yield Element("action", plain(" ".join(line.strip("!><~ ") for line in lines)), "", start, end)


def _speeches(lines: Sequence[str], start: int, end: int) -> Iterator[Element]:
    """A play's lines: NAME: words, and what runs on below them."""
    speaker, said = "", ""
    for line in lines:
        if match := _PLAY.fullmatch(line):
            if said:
                yield Element("dialogue", plain(said), speaker, start, end)
            speaker, said = match["name"], match["said"]
        else:
            said = f"{said} {line}"
    yield Element("dialogue", plain(said), speaker, start, end)


def plain(text: str) -> str:
    """Text without Fountain's marks of emphasis."""
    return _EMPHASIS.sub("", text).replace("\\*", "*").replace("\\_", "_")


def excerpts(script: str, size: int = 1024, minimum: int = 256) -> list[Excerpt]:
    """The script in pieces of `minimum` to about `size` characters that begin where a scene does, if they can.

    A scene that is too short goes with the next; what is left at the end goes with the piece before. Raises ValueError if nobody
    speaks: then it is no script.
    """
    found = elements(script)
    if not any(element.kind == "dialogue" for element in found):
        raise ValueError("nobody speaks in it: no line of capitals has words below it")
    pieces: list[list[Element]] = [[]]
    for element in found:
        text = _text(pieces[-1])
        if len(text) >= minimum and (element.kind == "scene" or len(text) + len(_line(element)) > size):
            pieces.append([])
        pieces[-1].append(element)
    if len(pieces) > 1 and len(_text(pieces[-1])) < minimum:
        last = pieces.pop()
        pieces[-1] += last
    title = ""
    made = []
    for piece in pieces:
        title = next((element.text for element in piece if element.kind == "scene"), title)
        if text := _text(piece):
            made.append(Excerpt(title, text, piece[0].start, piece[-1].end))
    return made


def _text(piece: Sequence[Element]) -> str:
    return "\n".join(line for element in piece if (line := _line(element)))


def _line(element: Element) -> str:
    if element.kind == "scene":
        return ""
    return f"{element.speaker}: {element.text}" if element.kind == "dialogue" else f"({element.text})"
