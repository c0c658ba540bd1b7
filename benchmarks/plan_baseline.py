"""The plan's own chunking and keyword filter: what the corpus stage is measured against, in speed and in counts.

One process, plain Python and one regular expression a keyword, as a script for this would be written at first. It stands alone on
purpose: nothing of `deepred_ray` is imported, so it cannot change with what it is compared to.

    python benchmarks/plan_baseline.py corpus.jsonl out.jsonl --keywords lexicon.tsv --min-matches 3

In: JSON lines with id, title, author and text, a book each. Out: JSON lines with work_id, work_title, chunk_id (from 0 in its
book), text, length and keyword_counts (theme -> distinct keywords that hit, and their total), a chunk that passed each.
"""

import argparse
import json
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

LEXICON = Path(__file__).parents[1] / "deepred_ray/data/themes/deepred/lexicon.tsv"

Keywords = dict[str, list[str]]


def read_keywords(path: Path) -> Keywords:
    """Keywords by theme, of tab-separated lines under a header: theme and keyword, and in a lexicon of more columns a last
    one that is 1 where the keyword is the plan's."""
    keywords: Keywords = {}
    for line in path.read_text("utf-8").splitlines()[1:]:
        theme, keyword, *more = line.split("\t")
        if not more or more[-1] == "1":
            keywords.setdefault(theme, []).append(keyword)
    return keywords


def chunk_paragraphs(text: str, size: int = 1024, minimum: int = 256) -> list[str]:
    """Paragraphs parted by blank lines, gathered while the sum of their lengths stays within `size` characters.

    A longer paragraph is a chunk of its own, whole. Chunks of fewer than `minimum` characters are left out.
    """
    chunks = []
    gathered: list[str] = []
    length = 0
    for paragraph in re.split(r"\n\s*\n", text):
        paragraph = paragraph.strip()
        if not paragraph:
            continue
        if gathered and length + len(paragraph) > size:
            chunks.append("\n\n".join(gathered))
            gathered, length = [], 0
        gathered.append(paragraph)
        length += len(paragraph)
    if gathered:
        chunks.append("\n\n".join(gathered))
    return [chunk for chunk in chunks if len(chunk) >= minimum]


def chunk_overlap(text: str, size: int = 1024, overlap: int = 128, minimum: int = 256) -> list[str]:
    """Windows of size/5 words, with overlap/5 words in common, a word being taken for five characters.

    Windows of fewer than `minimum` characters are left out.
    """
    words = text.split()
    width, step = size // 5, size // 5 - overlap // 5
    chunks = []
    for start in range(0, len(words), step):
        chunks.append(" ".join(words[start : start + width]))
        if start + width >= len(words):
            break
    return [chunk for chunk in chunks if len(chunk) >= minimum]


def count(text: str, keywords_by_theme: Keywords) -> dict[str, int]:
    """How many distinct keywords of each theme occur at word boundaries of the lower-cased text; 0 for the other themes."""
    lowered = text.lower()
    counts = dict.fromkeys(keywords_by_theme, 0)
    for theme, keywords in keywords_by_theme.items():
        for keyword in keywords:
            if re.search(r"\b" + re.escape(keyword) + r"\b", lowered):
                counts[theme] += 1
    return counts


def total(counts: dict[str, int]) -> int:
    """Sum over the themes: a keyword of three themes counts three times."""
    return sum(counts.values())


def chunk_works(works: Iterable[dict[str, Any]], method: str = "paragraph") -> Iterator[dict[str, Any]]:
    """The chunks of books, each with id and title of its book; `method` is paragraph or overlap."""
    for work in works:
        chunks = chunk_paragraphs(work["text"]) if method == "paragraph" else chunk_overlap(work["text"])
        for number, text in enumerate(chunks):
            yield {"work_id": work["id"], "work_title": work["title"], "chunk_id": number, "text": text, "length": len(text)}


def filter_chunks(chunks: Iterable[dict[str, Any]], keywords_by_theme: Keywords, min_matches: int = 3) -> Iterator[dict[str, Any]]:
    """The chunks with a total of `min_matches` at least, each with its `keyword_counts`."""
    for chunk in chunks:
        counts = count(chunk["text"], keywords_by_theme)
        counts["total"] = total(counts)
        if counts["total"] >= min_matches:
            yield chunk | {"keyword_counts": counts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="JSON lines: id, title, author, text")
    parser.add_argument("output", type=Path, help="JSON lines to write: the chunks that passed")
    parser.add_argument("--keywords", type=Path, default=LEXICON, help="keywords by theme (default: %(default)s)")
    parser.add_argument("--method", choices=["paragraph", "overlap"], default="paragraph", help="of chunking (%(default)s)")
    parser.add_argument("--min-matches", type=int, default=3, help="total a chunk must have (default: %(default)s)")
    options = parser.parse_args()
    started = time.perf_counter()
    keywords = read_keywords(options.keywords)
    with options.corpus.open(encoding="utf-8") as lines:
        chunks = list(chunk_works((json.loads(line) for line in lines), options.method))
    passed = 0
    with options.output.open("w", encoding="utf-8") as out:
        for chunk in filter_chunks(chunks, keywords, options.min_matches):
            out.write(json.dumps(chunk, ensure_ascii=False) + "\n")
            passed += 1
    print(f"{passed} of {len(chunks)} chunks passed in {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
