"""The matcher alone, on one core, against the plan's counting and, where it is installed, Hyperscan.

    python benchmarks/matcher.py mirror/files
    pip install hyperscan        # for the last row; nothing else needs it

Every way gets the same chunks, a book's at a time. Speeds are medians of five passes; the plan's is taken on one chunk in twenty.
Then every chunk is counted both ways, and the first that differs is printed.
"""

import argparse
import importlib
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import chain

import books
import plan_baseline

from deepred_ray.text.chunking import chunk_paragraphs
from deepred_ray.text.matching import Matcher
from deepred_ray.text.themes import Scorer
from deepred_ray.theme import Theme

PASSES = 5
SAMPLE = 20


def chunk_texts(sources: Sequence[books.Book]) -> list[list[str]]:
    """The texts of each book's chunks."""
    return [[chunk.text for chunk in chunk_paragraphs(book.text, start=book.body_start)] for book in sources]


def seconds(work: Callable[[], object]) -> float:
    """Median of several passes."""
    passes = []
    for _ in range(PASSES):
        started = time.perf_counter()
        work()
        passes.append(time.perf_counter() - started)
    return statistics.median(passes)


def score_all(scorer: Scorer, chunks: Sequence[Sequence[str]]) -> None:
    for texts in chunks:
        scorer.score(texts)


def find_all(matcher: Matcher, chunks: Sequence[Sequence[str]]) -> None:
    for texts in chunks:
        matcher.find(texts)


def count_all(keywords: plan_baseline.Keywords, texts: Sequence[str]) -> None:
    for text in texts:
        plan_baseline.count(text, keywords)


def scanner(keywords: Sequence[str]) -> Callable[[Sequence[bytes]], None] | None:
    """Hyperscan's search for the keywords, which reports nothing; None where it is not installed."""
    try:
        hyperscan = importlib.import_module("hyperscan")
    except ModuleNotFoundError:
        return None
    database = hyperscan.Database()
    expressions = [rf"\b{re.escape(keyword)}\b".encode() for keyword in keywords]
    database.compile(expressions=expressions, flags=hyperscan.HS_FLAG_CASELESS)

    def scan(texts: Sequence[bytes]) -> None:
        for text in texts:
            database.scan(text)

    return scan


def first_difference(scorer: Scorer, keywords: plan_baseline.Keywords, chunks: Sequence[Sequence[str]]) -> str | None:
    """A chunk that the scorer and the plan count differently, and both counts; None if there is none."""
    for texts in chunks:
        for text, row in zip(texts, scorer.score(texts).counts.tolist(), strict=True):
            ours = dict(zip(scorer.lexicon.themes, row, strict=True))
            plans = plan_baseline.count(text, keywords)
            if ours != plans:
                return f"{text}\n\nhere:     {ours}\nthe plan: {plans}"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    books.add_arguments(parser)
    options = parser.parse_args()
    scorer = Theme.find(books.THEME).scorer
    keywords = plan_baseline.read_keywords(plan_baseline.LEXICON)
    distinct = sorted(set(chain.from_iterable(keywords.values())))
    chunks = chunk_texts(books.chosen_books(options))
    texts = list(chain.from_iterable(chunks))
    sample = texts[::SAMPLE]
    characters = sum(map(len, texts))
    matcher = Matcher(distinct)
    speeds = {
        f"plan, {len(distinct)} keywords": sum(map(len, sample)) / seconds(lambda: count_all(keywords, sample)),
        f"Matcher.find, {len(distinct)} keywords": characters / seconds(lambda: find_all(matcher, chunks)),
        f"Scorer.score, {len(scorer.lexicon.terms)} terms": characters / seconds(lambda: score_all(scorer, chunks)),
    }
    if scan := scanner(distinct):
        encoded = ["\n".join(book).encode() for book in chunks]
        speeds[f"Hyperscan, {len(distinct)} keywords, a book a scan"] = characters / seconds(lambda: scan(encoded))
    plan = next(iter(speeds.values()))
    print(f"{len(texts)} chunks, {characters / 1e6:.1f} M characters")
    for name, speed in speeds.items():
        print(f"{name:<45} {speed / 1e6:8.2f} M chars/s  {speed / plan:7.1f} times the plan")
    if difference := first_difference(scorer, keywords, chunks):
        sys.exit(f"counts differ on this chunk:\n{difference}")
    print(f"counts agree on all {len(texts)} chunks")


if __name__ == "__main__":
    main()
