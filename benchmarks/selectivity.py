"""Does the theme filter select? Set its threshold on half of the priority works, look at what it keeps of the other half.

    python benchmarks/selectivity.py BOOKS_FOLDER                           the table
    python benchmarks/selectivity.py BOOKS_FOLDER --pairs FILE              and 60 pairs of passages for a reader
    python benchmarks/selectivity.py BOOKS_FOLDER --answers ANSWERS.tsv     and how often that reader and the filter agree

The works are halved within each category of the theme's list, by a fixed seed. The threshold is that at which the score
keeps --keep of the first half's chunks. A pair is a kept and a dropped passage of the other half, in random order; FILE has
no label. A reader who has not seen the scores writes, for each pair, 1 or 2: the passage that is on the theme. ANSWERS is
tab-separated with the header `pair, answer`.
"""

import argparse
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from books import PRIORITY, Book, read_books

from deepred_ray.text.chunking import chunk_paragraphs
from deepred_ray.theme import Theme

SEED = 1969
PAIRS = 60
MINIMUM = 256


@dataclass(frozen=True, slots=True)
class Rated:
    chunk_id: str
    category: str
    text: str
    score: float


def halves(categories: dict[str, str]) -> tuple[list[str], list[str]]:
    """Ids of the works, parted within each category."""
    drawn = random.Random(SEED)
    first: list[str] = []
    second: list[str] = []
    for category in sorted(set(categories.values())):
        ids = sorted(book_id for book_id in categories if categories[book_id] == category)
        drawn.shuffle(ids)
        # The larger part of an odd number goes to the smaller half.
        small, large = (first, second) if len(first) <= len(second) else (second, first)
        small += ids[: (len(ids) + 1) // 2]
        large += ids[(len(ids) + 1) // 2 :]
    return first, second


def rate(books: list[Book], categories: dict[str, str], theme: Theme) -> list[Rated]:
    """Every chunk of the books that is long enough to be a passage."""
    rated = []
    for book in books:
        pieces = chunk_paragraphs(book.text, start=book.body_start)
        scores = theme.scorer.score([piece.text for piece in pieces]).scores.tolist()
        rated += [
            Rated(f"{book.book_id}:{piece.start}-{piece.end}", categories[book.book_id], piece.text, score)
            for piece, score in zip(pieces, scores, strict=True)
            if len(piece.text) >= MINIMUM
        ]
    return rated


def draw_pairs(chunks: list[Rated], threshold: float) -> list[tuple[Rated, Rated]]:
    """A kept and a dropped chunk each, either first."""
    drawn = random.Random(SEED)
    kept = drawn.sample([chunk for chunk in chunks if chunk.score >= threshold], PAIRS)
    dropped = drawn.sample([chunk for chunk in chunks if chunk.score < threshold], PAIRS)
    return [pair if drawn.random() < 0.5 else pair[::-1] for pair in zip(kept, dropped, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of Project Gutenberg .txt files, such as a mirror's files/")
    parser.add_argument("--keep", type=float, default=0.22, help="share of the first half to keep (default: %(default)s)")
    parser.add_argument("--pairs", type=Path, help="write the pairs there, for a reader")
    parser.add_argument("--answers", type=Path, help="a reader's answers")
    options = parser.parse_args()
    rows = [line.split("\t") for line in PRIORITY.read_text("utf-8").splitlines()[1:]]
    categories = {row[0]: row[2] for row in rows}
    theme = Theme.find("deepred")
    books = {book.book_id: book for book in read_books(options.folder, list(categories))}
    first, second = (rate([books[book_id] for book_id in ids if book_id in books], categories, theme) for ids in halves(categories))
    threshold = float(np.quantile([chunk.score for chunk in first], 1 - options.keep))
    print(f"threshold {threshold:.2f} keeps {options.keep:.1%} of {len(first)} chunks of the first half")
    kept = [chunk for chunk in second if chunk.score >= threshold]
    print(f"and {len(kept) / len(second):.1%} of {len(second)} chunks of the other half:")
    for category in sorted(set(categories.values())):
        there = [chunk.score >= threshold for chunk in second if chunk.category == category]
        print(f"  {category:24} {sum(there):6} of {len(there):6}  {sum(there) / max(1, len(there)):6.1%}")
    pairs = draw_pairs(second, threshold)
    if options.pairs:
        blocks = [f"=== pair {n}\n--- 1\n{one.text}\n--- 2\n{two.text}\n" for n, (one, two) in enumerate(pairs, 1)]
        options.pairs.write_text("\n".join(blocks), "utf-8")
    if options.answers:
        answers = dict(line.split("\t")[:2] for line in options.answers.read_text("utf-8").splitlines()[1:])
        right = 0
        print("pair\tfirst\tsecond\tkept\tanswer")
        for number, (one, two) in enumerate(pairs, 1):
            label, answer = "1" if one.score >= threshold else "2", answers[str(number)]
            right += answer == label
            print(f"{number}\t{one.chunk_id}\t{two.chunk_id}\t{label}\t{answer}")
        print(f"{right} of {len(pairs)} agree, {right / len(pairs):.1%}")


if __name__ == "__main__":
    main()
