"""Does the temporal gate reject what is modern, and only that? False rejects on genuine books, recall on planted sentences.

    python benchmarks/era.py MIRROR --planted FILE            the table
    python benchmarks/era.py MIRROR --planted FILE --show     and each rejected passage of the tuning works, each missed sentence
    python benchmarks/era.py MIRROR --part tuning             books of the tuning works alone

MIRROR has files/ and cache/epub/feeds/pg_catalog.csv. A passage is a chunk of the corpus stage, of a work that the acquire stage
finds English and dates before the theme's cutoff year. FILE has a sentence a line that nobody could have written before that year.
The works are parted by their number alone (`is_tuning`): the lexicon was tuned on one part and the other was not looked into.
"""

import argparse
import hashlib
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from deepred_ray.stages.acquire import DatingRule, open_book
from deepred_ray.stages.selection import Wish
from deepred_ray.text import catalogue
from deepred_ray.text.anachronism import Gate, Hit
from deepred_ray.text.chunking import chunk_paragraphs
from deepred_ray.text.metrics import wilson
from deepred_ray.text.reject import Reject
from deepred_ray.theme import Theme

PARTS = ("tuning", "held-out")
FEED = Path("cache/epub/feeds/pg_catalog.csv")
# Of several files of a work the best is read: those in UTF-8, then one byte a character.
VARIANTS = ("{id}-0.txt", "pg{id}.txt", "{id}-8.txt", "{id}.txt")


def is_tuning(book_id: str) -> bool:
    """Whether the lexicon may have been tuned on the work: half of all numbers, by their hash."""
    return hashlib.sha256(f"era{book_id}".encode()).digest()[0] < 128


def passages(mirror: Path, part: str, theme: Theme) -> Iterator[tuple[str, str]]:
    """Id of the work and text of each passage of the part's works, by number."""
    entries = catalogue.parse((mirror / FEED).read_text("utf-8"))
    rule = DatingRule(theme.cutoff_year, {str(number): work.year for number, work in theme.priority_works.items()}, False)
    ids = {
        match[1] for path in (mirror / "files").rglob("*.txt") if (match := re.fullmatch(r"(?:pg)?(\d+)(?:-[08])?\.txt", path.name))
    }
    for book_id in sorted((book_id for book_id in ids if is_tuning(book_id) == (part == "tuning")), key=int):
        files = [mirror / "files" / book_id / variant.format(id=book_id) for variant in VARIANTS]
        best = next((file for file in files if file.is_file()), None)
        entry = entries.get(int(book_id))
        if best is None or entry is None:
            continue
        wish = Wish(book_id, entry.title, entry.authors, entry.birth_year, entry.death_year)
        book = open_book(best.read_bytes(), asdict(wish), "en", rule)
        if not isinstance(book, Reject):
            for piece in chunk_paragraphs(book["text"], start=book["body_start"]):
                yield book_id, piece.text


def share(count: int, total: int) -> str:
    """The share and its interval in percent."""
    low, high = wilson(count, total)
    return f"{count} of {total}, {count / total:.2%} (95 % Wilson interval {low:.2%} to {high:.2%})"


def terms(hits: list[Hit]) -> str:
    """Each hit once, with its reason."""
    return "; ".join(dict.fromkeys(f"{hit.term} ({hit.reason}, {hit.year})" for hit in hits))


def measure_books(mirror: Path, part: str, theme: Theme, show: bool) -> None:
    """Print the false rejects of the part's works, by reason, and the speed of the gate."""
    gate = theme.era
    works: set[str] = set()
    reasons: Counter[str] = Counter()
    total = rejected = chars = 0
    seconds = 0.0
    for book_id, text in passages(mirror, part, theme):
        start = time.process_time()
        hits = gate.hits(text)
        seconds += time.process_time() - start
        works.add(book_id)
        total += 1
        chars += len(text)
        if hits:
            rejected += 1
            reasons.update({hit.reason for hit in hits})
            if show:
                around = text[max(0, hits[0].start - 120) : hits[0].end + 120].replace("\n", " ")
                print(f"  {book_id}: {terms(hits)}: ...{around}...")
    print(f"{part} works: {len(works)}, {chars / 1e6:.1f} M characters, {chars / seconds / 1e6:.1f} M characters a second")
    print(f"  passages rejected: {share(rejected, total)}")
    print(f"  by reason: {dict(reasons.most_common()) or 'none'}")


def measure_planted(sentences: list[str], gate: Gate, show: bool) -> None:
    """Print the recall on the sentences and how many a hit of each reason would reject."""
    found = [gate.hits(sentence) for sentence in sentences]
    print(f"planted sentences rejected: {share(sum(map(bool, found)), len(sentences))}")
    print(f"  by reason: {dict(Counter(reason for hits in found for reason in {hit.reason for hit in hits}).most_common())}")
    for sentence, hits in zip(sentences, found, strict=True):
        if show and not hits:
            print(f"  missed: {sentence}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mirror", type=Path, help="folder of a Gutenberg mirror")
    parser.add_argument("--part", choices=PARTS, help="only these works (default: both, apart)")
    parser.add_argument("--planted", type=Path, help="modern sentences, one a line")
    parser.add_argument("--show", action="store_true", help="list rejected passages of the tuning works and missed sentences")
    options = parser.parse_args()
    theme = Theme.find("deepred")
    for part in [options.part] if options.part else PARTS:
        measure_books(options.mirror, part, theme, options.show and part == "tuning")
    if options.planted:
        sentences = [line for line in options.planted.read_text("utf-8").splitlines() if line.strip()]
        measure_planted(sentences, theme.era, options.show)


if __name__ == "__main__":
    main()
