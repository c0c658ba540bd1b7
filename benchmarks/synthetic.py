"""Make a run of N times the books of a folder, to see how the corpus stage grows.

Each synthetic book is a walk through one real book: an order-one Markov chain over its words, each with the white space that
followed it. So length, vocabulary, theme keywords, paragraphs, verses and headings are much like the source's, and no two
books are alike.

    python benchmarks/synthetic.py mirror/files --times 10 --data-root runs --run tenfold
    deepred corpus --data-root runs --run tenfold
"""

import argparse
import re
import time
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import books
import numpy as np
import psutil
from books import Book
from numpy.typing import NDArray

from deepred_ray.text.dedup import signature

SEED = 1968
_WIDTH = 70  # characters of a wrapped line
_SHORTEST_WRAPPED = 55  # a shorter line ends where its author wanted
_LANES = 256
_SAMPLED = 8  # sources whose copies are compared


class Chain:
    """Order-one Markov chain over the words of a text, each with the white space after it; wrapped lines are unwrapped first."""

    def __init__(self, text: str) -> None:
        number: dict[str, int] = {}
        self._words = np.array([number.setdefault(word, len(number)) for word in _words(text)], dtype=np.int32)
        # The places of word w in the text are _places[_first[w] : _first[w] + _count[w]].
        self._count = np.bincount(self._words)
        self._first = np.cumsum(self._count) - self._count
        self._places = np.argsort(self._words, kind="stable").astype(np.int32)
        self._lengths = np.array([len(word) for word in number])
        self._ends_line = np.array(["\n" in word for word in number])
        self._indents = np.array([len(word) - word.rfind("\n") - 1 for word in number])  # of the next line, where one ends
        self._spelled = [*number, *(f"{word.rstrip()}\n" for word in number)]  # as they are, then at the end of a wrapped line

    def text(self, rng: np.random.Generator) -> str:
        """Another text of as many words."""
        words = self._walk(rng)
        ends = np.cumsum(self._lengths[words])
        broken = self._ends_line[words]
        line_start = np.maximum.accumulate(np.where(broken, ends - self._indents[words], 0))
        row = (ends - 1 - np.concatenate([[0], line_start[:-1]])) // _WIDTH
        wraps = np.append(row[1:] > row[:-1], False) & ~broken
        return "".join(map(self._spelled.__getitem__, (words + wraps * len(self._lengths)).tolist())).rstrip()

    def _walk(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Word numbers. Many walks are made at once and joined: that is what makes it quick."""
        lanes = min(_LANES, len(self._words))
        steps = np.empty((-(-len(self._words) // lanes), lanes), dtype=np.int64)
        place = rng.integers(len(self._words), size=lanes)
        for step in steps:
            step[:] = self._words[(place + 1) % len(self._words)]
            place = self._places[self._first[step] + (rng.random(lanes) * self._count[step]).astype(np.int64)]
        return steps.T.ravel()[: len(self._words)]


def _words(text: str) -> Iterator[str]:
    """The words of a text with the white space after each; where a line was merely wrapped, that is a blank."""
    for match in re.finditer(r"(\S+)(\s*)", f"{text.strip()}\n\n"):
        word, gap = match.groups()
        wrapped = gap == "\n" and match.end(1) - match.string.rfind("\n", 0, match.end(1)) > _SHORTEST_WRAPPED
        yield f"{word} " if wrapped else match.group()


def synthetic_books(sources: Sequence[Book], times: int, seed: int) -> Iterator[Book]:
    """`times` books for each source, every source in turn; a book is a function of its source, its number and the seed."""
    chains = [Chain(source.body) for source in sources]
    for copy in range(1, times + 1):
        for source, chain in zip(sources, chains, strict=True):
            text = chain.text(np.random.default_rng([seed, int(source.book_id), copy]))
            yield Book(f"{source.book_id}-{copy}", f"{source.title}, {copy}", text, 0)


def closest(texts: Sequence[str]) -> float:
    """The largest similarity of any two texts: Jaccard of their three-word shingles, estimated by MinHash."""
    signatures = [signature(text) for text in texts]
    return max(float((one == other).mean()) for one, other in combinations(signatures, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    books.add_arguments(parser)
    parser.add_argument("--times", type=int, default=3, help="books for each of the folder's (default: %(default)s)")
    parser.add_argument("--data-root", type=Path, default=Path("runs"), help="folder of runs (default: %(default)s)")
    parser.add_argument("--run", default="synthetic", help="name of the run to make (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="another seed makes other books (default: %(default)s)")
    options = parser.parse_args()
    started = time.perf_counter()
    sources = books.chosen_books(options)
    made = characters = 0
    compared = [source.body for source in sources[:_SAMPLED]]

    def watched() -> Iterator[Book]:
        nonlocal made, characters
        for book in synthetic_books(sources, options.times, options.seed):
            if made % len(sources) < _SAMPLED:
                compared.append(book.text)
            made += 1
            characters += len(book.text)
            yield book

    run = books.write_run(options.data_root, options.run, watched())
    seconds = time.perf_counter() - started
    peak = psutil.Process().memory_info().rss / 2**20
    print(f"{made} books, {characters / 1e6:.1f} M characters in {seconds:.0f} s, {peak:.0f} MiB: {run.folder.path}")
    real = sum(len(source.body) for source in sources)
    print(f"{characters / made:.0f} characters a book, {real / len(sources):.0f} in the sources")
    print(f"closest two of {len(compared)} books, sources among them: similarity {closest(compared):.2f} of 1")


if __name__ == "__main__":
    main()
