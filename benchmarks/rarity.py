"""Measure how rare the terms of a theme's lexicon are in English books, and write that into its column `rarity`.

    python benchmarks/rarity.py BOOKS_FOLDER [--lexicon FILE]

A term's rarity is -log10 of the share of chunks (of the default size, of all the folder's English books, each book weighing
the same) that hold it; a term that occurs nowhere is as rare as one that occurs in half a chunk. Books that differ from
those of the shipped table change figures by little: run it again when terms were added.
"""

import argparse
from pathlib import Path

import numpy as np
from books import read_books

from deepred_ray.text.chunking import chunk_paragraphs
from deepred_ray.text.language import language
from deepred_ray.text.matching import Matcher
from deepred_ray.text.themes import COLUMNS

LEXICON = Path(__file__).parents[1] / "deepred_ray/data/themes/deepred/lexicon.tsv"


def shares(folder: Path, matcher: Matcher) -> tuple[np.ndarray, int, int]:
    """Mean over the English books of the share of their chunks with each term, shape (terms,); books and chunks read."""
    total, books, chunks = np.zeros(len(matcher.terms)), 0, 0
    for book in read_books(folder):
        texts = [chunk.text for chunk in chunk_paragraphs(book.text, start=book.body_start)]
        if language(book.body)[0] != "en" or len(texts) < 20:
            continue
        total += np.bincount(matcher.find(texts).term, minlength=len(matcher.terms)) / len(texts)
        books += 1
        chunks += len(texts)
    return total / books, books, chunks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of Project Gutenberg .txt files, such as a mirror's files/")
    parser.add_argument("--lexicon", type=Path, default=LEXICON, help="the table to change (default: %(default)s)")
    options = parser.parse_args()
    rows = [line.split("\t") for line in options.lexicon.read_text("utf-8").splitlines()[1:]]
    matcher = Matcher(list(dict.fromkeys(row[1] for row in rows)))
    share, books, chunks = shares(options.folder, matcher)
    rarity = dict(zip(matcher.terms, -np.log10(np.maximum(share, 0.5 / chunks)), strict=True))
    lines = ["\t".join(COLUMNS)] + [f"{row[0]}\t{row[1]}\t{row[2]}\t{rarity[row[1]]:.1f}\t{row[4]}" for row in rows]
    options.lexicon.write_text("\n".join(lines) + "\n", "utf-8")
    print(
        f"{len(rows)} entries, {len(rarity)} terms in {chunks} chunks of {books} English books; {(share == 0).sum()} terms in none"
    )


if __name__ == "__main__":
    main()
