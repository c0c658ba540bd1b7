"""Chunks of a book: paragraphs gathered to a size, or overlapping windows, with offsets back into the source.

All sizes are of a chunk's legible text: in characters, or in the unit of a `Measure`, such as the tokens of a model.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from deepred_ray.text.layout import BETWEEN, Layout

Measure = Callable[[Sequence[str]], Sequence[int]]
"""Lengths of texts, asked of many at once. No character may count as more than four, its bytes in UTF-8.

A chunk's length is the sum of those of the paragraphs or sentences in it, and one for each blank between them. A tokenizer
that parts text at blanks makes no more of the whole: it has most blanks and the word after them as one token.
"""

_NON_BLANKS = re.compile(r"\S+")
_MOST_PER_CHARACTER: Final = 4


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch of a source text: its characters `start` to `end` (end excluded), and `text`, the same made legible.

    `length` is that of the text in the unit in which it was cut, and decides whether the text is long enough.
    """

    start: int
    end: int
    text: str
    length: int


@dataclass(slots=True)
class _Block:
    """A paragraph or a part of one: its span, its legible text and its length, and `joint`, what stands before it in a chunk."""

    start: int
    end: int
    text: str
    laid_out: bool = False
    heading: bool = False
    joint: str = BETWEEN
    length: int = 0


class _Draft:
    """A chunk in the making: blocks that follow each other in the source."""

    def __init__(self) -> None:
        self.blocks: list[_Block] = []
        self.length = 0

    def length_with(self, block: _Block) -> int:
        """Return the length of the draft with `block` at its end."""
        return self.length + len(block.joint) + block.length if self.blocks else block.length

    def add(self, block: _Block) -> None:
        """Put `block` at the end."""
        self.length = self.length_with(block)
        self.blocks.append(block)

    def can_end(self, minimum: int) -> bool:
        """Say whether the draft can stand as a chunk: it is long enough and no heading ends it."""
        return self.length >= minimum and bool(self.blocks) and not self.blocks[-1].heading


def characters(texts: Sequence[str]) -> list[int]:
    """Measure texts in characters."""
    return list(map(len, texts))


def chunk_paragraphs(
    text: str, *, start: int = 0, size: int = 1024, minimum: int = 256, measure: Measure = characters
) -> list[Chunk]:
    """Gather the paragraphs of `text` from offset `start` on into chunks of at most `size`, in the unit of `measure`.

    Every non-blank character from `start` on lies in exactly one chunk, in order. A heading begins a new chunk and
    stays with what follows it. A paragraph is cut, at the end of a sentence, only when it is longer than `size` or the
    chunk before it would else be shorter than `minimum`; a sentence, between words, only when it alone exceeds `size`.

    What would be shorter than `minimum` goes beyond `size` instead: it takes the next sentence, verse or diagram whole,
    or, at the end of a section or of the text, joins the chunk before. So no chunk is longer than
    `size + 3 * (minimum + 2)` and the 250 characters that headings may have, and none is shorter than `minimum` but the
    only chunk of a short text: its length is its mark.
    Raises ValueError for a size below 1, a minimum outside 0..size or a start outside the text.
    """
    _check(text, start, size, minimum)
    layout = Layout(text, start)
    drafts = [_Draft()]
    headings: list[_Block] = []
    for block in _measured(_paragraphs(layout), measure):
        if block.heading:
            headings.append(block)
            continue
        _begin_section(drafts, headings, minimum)
        headings.clear()
        fits = drafts[-1].length_with(block) <= size
        if not fits and drafts[-1].can_end(minimum):
            drafts.append(_Draft())
            fits = block.length <= size
        if fits or (block.laid_out and block.length <= size):
            drafts[-1].add(block)
            continue
        for part in _parts(layout, [block], size, measure):
            if drafts[-1].length_with(part) > size and drafts[-1].can_end(minimum):
                drafts.append(_Draft())
            drafts[-1].add(part)
    _begin_section(drafts, headings, minimum)
    if len(drafts) > 1 and drafts[-1].length < minimum:
        _join_last(drafts)
    return [_chunk(draft.blocks, draft.length) for draft in drafts if draft.blocks]


def _begin_section(drafts: list[_Draft], headings: list[_Block], minimum: int) -> None:
    """Put headings, if there are any, at the start of a new draft; into the last one while that is itself too short."""
    if not headings:
        return
    last = drafts[-1]
    if last.length < minimum and len(drafts) > 1 and not last.blocks[0].heading:
        _join_last(drafts)
        drafts.append(_Draft())
    elif last.blocks and last.length >= minimum:
        drafts.append(_Draft())
    for heading in headings:
        drafts[-1].add(heading)


def _join_last(drafts: list[_Draft]) -> None:
    """Add the last draft to the one before it."""
    last = drafts.pop()
    for block in last.blocks:
        drafts[-1].add(block)


def chunk_overlap(
    text: str, *, start: int = 0, size: int = 1024, overlap: int = 128, minimum: int = 256, measure: Measure = characters
) -> list[Chunk]:
    """Cut `text` from offset `start` on into windows of whole sentences, each beginning inside the one before it.

    A window takes sentences, and diagrams or verses whole, while they stay within `size` together; it takes one more
    while it is shorter than `minimum`, and a rest of the text shorter than `minimum` goes into the last window. The
    next window repeats the last whole sentences, at least `overlap` of them; fewer where those and the next sentence
    exceed `size`. A heading goes with the sentence after it. Every non-blank character lies in a window, and bounds and
    `measure` are those of `chunk_paragraphs`.
    Raises ValueError as `chunk_paragraphs` does, and for an overlap outside 0..size-1.
    """
    _check(text, start, size, minimum)
    if not 0 <= overlap < size:
        raise ValueError(f"overlap must be at least 0 and less than the chunk size {size}, not {overlap}")
    atoms = _atoms(Layout(text, start), size, measure)
    stops = list(accumulate(len(atom.joint) + atom.length for atom in atoms))

    def span(first: int, after: int) -> int:
        return stops[after - 1] - stops[first] + atoms[first].length

    chunks: list[Chunk] = []
    first = fresh = 0
    while fresh < len(atoms):
        after = fresh + 1
        while after < len(atoms) and (span(first, after + 1) <= size or span(first, after) < minimum):
            after += 1
        if after < len(atoms) and span(after, len(atoms)) < minimum:
            after = len(atoms)
        chunks.append(_chunk(atoms[first:after], span(first, after)))
        if after == len(atoms):
            break
        back = after
        while back > first + 1 and max(0, span(back, after)) < overlap:
            back -= 1
        while back < after and span(back, after + 1) > size:
            back += 1
        first, fresh = back, after
    return chunks


def _atoms(layout: Layout, size: int, measure: Measure) -> list[_Block]:
    """Return what windows never cut: sentences, lines and whole diagrams, each with the headings before it."""
    paragraphs = _paragraphs(layout)
    _measured([paragraph for paragraph in paragraphs if paragraph.laid_out], measure)
    atoms: list[_Block] = []
    for part in _parts(layout, paragraphs, size, measure):
        if atoms and atoms[-1].heading:
            head = atoms.pop()
            legible = head.text + part.joint + part.text
            length = head.length + len(part.joint) + part.length
            part = _Block(head.start, part.end, legible, heading=part.heading, length=length)
        atoms.append(part)
    return atoms


def _check(text: str, start: int, size: int, minimum: int) -> None:
    if size < 1:
        raise ValueError(f"chunk size must be at least 1, not {size}")
    if not 0 <= minimum <= size:
        raise ValueError(f"minimum must be from 0 to the chunk size {size}, not {minimum}")
    if not 0 <= start <= len(text):
        raise ValueError(f"start must lie in the text of {len(text)} characters, not at {start}")


def _chunk(blocks: Sequence[_Block], length: int) -> Chunk:
    first, *others = blocks
    text = first.text + "".join(block.joint + block.text for block in others)
    return Chunk(first.start, blocks[-1].end, text, length)


def _paragraphs(layout: Layout) -> list[_Block]:
    return [_Block(*paragraph) for paragraph in layout.paragraphs()]


def _measured(blocks: list[_Block], measure: Measure) -> list[_Block]:
    """Set the lengths of blocks, all at once."""
    for block, length in zip(blocks, measure([block.text for block in blocks]), strict=True):
        block.length = length
    return blocks


def _parts(layout: Layout, blocks: Sequence[_Block], size: int, measure: Measure) -> Iterator[_Block]:
    """Yield blocks cut into sentences (lines, where laid out), and into words what exceeds `size` even so.

    Headings, and what is laid out and no longer than `size`, stay whole.
    """
    parts: list[_Block] = []
    for block in blocks:
        if block.heading or (block.laid_out and block.length <= size):
            parts.append(block)
            continue
        joint = block.joint
        if block.laid_out:
            for (start, end), row in zip(layout.lines(block.start, block.end), block.text.split("\n"), strict=True):
                parts.append(_Block(start, end, row, joint=joint))
                joint = "\n"
        else:
            for start, end in layout.sentences(block.start, block.end):
                parts.append(_Block(start, end, layout.in_one_line(start, end), joint=joint))
                joint = " "
    for part in _measured(parts, measure):
        if part.heading or part.length <= size:
            yield part
        else:
            yield from _words(layout, part, size, measure)


def _words(layout: Layout, block: _Block, size: int, measure: Measure) -> list[_Block]:
    """Return a block cut between words, each part as long as `size` lets it be; and a longer word between characters."""
    words = list(_crumbs(layout.text, block, size, measure))
    texts = [layout.text[start:end] for start, end in words]
    parts: list[_Block] = []
    length = last = -1
    for (start, end), alone, spaced in zip(words, measure(texts), measure([" " + text for text in texts]), strict=True):
        more = alone if start == last else spaced
        if parts and length + more <= size:
            length += more
            parts[-1].end = end
        else:
            length = alone
            parts.append(_Block(start, end, "", joint="" if start == last else " "))
        last = end
    parts[0].joint = block.joint
    for part in parts:
        part.text = layout.in_one_line(part.start, part.end)
    return _measured(parts, measure)


def _crumbs(text: str, block: _Block, size: int, measure: Measure) -> Iterator[tuple[int, int]]:
    """Yield the span of each word; of one longer than `size`, spans that are surely not."""
    words = [match.span() for match in _NON_BLANKS.finditer(text, block.start, block.end)]
    step = max(1, size // _MOST_PER_CHARACTER)
    for (start, end), length in zip(words, measure([text[start:end] for start, end in words]), strict=True):
        if length <= size:
            yield start, end
        else:
            yield from ((at, min(at + step, end)) for at in range(start, end, step))
