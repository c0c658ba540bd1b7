"""acquire: books from a Gutenberg mirror or from local files, without boilerplate, dated, in the wanted language.

INPUT   ids of books, or paths of local files
OUTPUT  books/ (schema.BOOKS), rejects/acquire/
fan-out one row a book; every wanted book is kept or rejected
"""

import contextlib
import hashlib
import json
from dataclasses import asdict
from functools import partial
from typing import Any

import pyarrow as pa
import ray.data

from deepred_ray import mirror
from deepred_ray.config import Config
from deepred_ray.console import Meter, counts_text, say
from deepred_ray.download import Downloader
from deepred_ray.errors import InputError, MirrorError, ShortfallError
from deepred_ray.runs import Manifest, Run
from deepred_ray.schema import BOOKS, REJECTS
from deepred_ray.stages.fetch import FetchBooks, politeness
from deepred_ray.stages.local import is_new, local_files, read_local
from deepred_ray.stages.selection import choose
from deepred_ray.stages.tables import Row, ShardWriter, write
from deepred_ray.storage import count_values
from deepred_ray.text import decoding, gutenberg
from deepred_ray.text.dating import Dating, date_work, temporal_rule
from deepred_ray.text.language import language
from deepred_ray.text.reject import Reject
from deepred_ray.theme import Theme

# Rejects of the road, not of the book: tried again when the stage is repeated.
PASSING = ("not_on_mirror", "download_failed", "mirror_gone")
BOOKS_A_SHARD = 8
UNSURE = ("edition", "author_life", "none")  # dates that only bound the year of publication


def run(run: Run, config: Config, theme: Theme) -> Manifest:
    """Fetch what is not there yet.

    Raises:
        MirrorError, ShortfallError: the mirror or some of its books do not answer; books that arrived are kept.
        InputError: a local input does not exist, or nothing was asked for.
    """
    settings = config.acquire
    with contextlib.ExitStack() as stack:
        base = stack.enter_context(mirror.serve_samples()) if settings.mirror == "sample" else settings.mirror
        done = ids_there(run)
        if settings.input:
            rows = ray.data.from_items([{"path": str(path)} for path in local_files(settings.input)]).flat_map(read_local)
            rows = rows.filter(partial(is_new, done=done))
            wanted = None
        else:
            wishes = choose(settings, theme, Downloader(base, **politeness(settings)), run)
            missing = [wish for wish in wishes if wish.book_id not in done]
            wanted = len(wishes)
            if not missing:
                return summarise(run)
            say(f"  {len(missing)} of {wanted} books to fetch from {base}, {settings.delay:g} s between requests")
            rows = ray.data.from_items(
                [{"wish": json.dumps(asdict(wish))} for wish in missing],
                override_num_blocks=min(len(missing), 4000),
            ).map_batches(
                FetchBooks,
                fn_constructor_args=(base, politeness(settings)),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=1),  # one actor a host keeps the pause between requests
                num_cpus=0.1,
            )
        books = rows.map(partial(read_book, cutoff_year=theme.cutoff_year, wanted_language=settings.language), num_cpus=0.5)
        writer = ShardWriter(
            {"books": (run.table("books"), BOOKS), "rejects": (run.table("rejects/acquire"), REJECTS)},
            sort=table_of,
            key="book_id",
        )
        rejected: dict[str, int] = {}
        with Meter("acquire", wanted, "books") as meter:
            for counts in write(books, writer, BOOKS_A_SHARD):
                rejected = {reason: n for (table, reason), n in counts.items() if table == "rejects"}
                meter.update(len(done) + counts.total(), counts_text(rejected))
    if gone := rejected.get("mirror_gone"):
        raise MirrorError(
            f"mirror {settings.mirror} went away, {gone} books or more are missing",
            f"Wait and repeat the command: what arrived is kept. `deepred inspect {run.name} rejects/acquire` has its last words.",
        )
    if failed := rejected.get("download_failed"):
        raise ShortfallError(
            f"{failed} books did not arrive, though the mirror {settings.mirror} has an answer for others",
            f"Repeat the command to try them again. `deepred inspect {run.name} rejects/acquire` names them.",
        )
    return summarise(run)


def ids_there(run: Run) -> frozenset[str]:
    """Books that need not be fetched again. Rejects that only the road caused are forgotten, and their books tried anew."""
    rejects = run.table("rejects/acquire")
    old = rejects.read_table(REJECTS)
    lasting = [row for row in old.to_pylist() if row["reason"] not in PASSING]
    if len(lasting) < old.num_rows:
        rejects.delete()
        if lasting:
            rejects.write_table(pa.Table.from_pylist(lasting, REJECTS), "lasting")
    books = run.table("books").read_table(BOOKS, ["book_id"])
    return frozenset(books["book_id"].to_pylist()) | {row["id"] for row in lasting}


def read_book(row: Row, cutoff_year: int, wanted_language: str) -> Row:
    """INPUT raw bytes; OUTPUT a row with the columns of BOOKS and of REJECTS, `reason` null if kept; fan-out 1:1."""
    wish = json.loads(row["wish"])
    book = dict.fromkeys([*BOOKS.names, *REJECTS.names]) | {
        "book_id": wish["book_id"],
        "id": wish["book_id"],
        "source_url": row["url"],
        "sha256": hashlib.sha256(row["raw"]).hexdigest(),
        "fetched_at": row["fetched_at"],  # seconds; Ray Data has no time zones
        "subjects": wish["subjects"],
        "authors": [],
    }
    outcome = Reject(row["problem"], row["url"]) if row["problem"] else open_book(row["raw"], wish, cutoff_year, wanted_language)
    if isinstance(outcome, Reject):
        return book | {"reason": outcome.reason, "detail": f"{wish['title'] or row['url']}: {outcome.detail}"}
    return book | outcome


def open_book(raw: bytes, wish: dict[str, Any], cutoff_year: int, wanted_language: str) -> Row | Reject:
    """The columns that the bytes decide, or why the book is not wanted."""
    decoded = decoding.decode(raw)
    if isinstance(decoded, Reject):
        return decoded
    stripped = gutenberg.strip(decoded.text)
    if isinstance(stripped, Reject):
        return stripped
    header = gutenberg.parse_header(decoded.text)
    body = stripped.text[stripped.body_start :]
    found, probability = language(body)
    if found != wanted_language:
        return Reject("wrong_language", f"the body is {found} ({probability:.2f}), {wanted_language} is wanted")
    title = wish["title"] or header.title
    if not title:
        return Reject("no_title", "neither the catalogue nor the header names it")
    pages = f"{stripped.notes}\n{stripped.text[: stripped.body_start]}"
    dating = date_work(title, pages, wish["birth_year"], wish["death_year"])
    if dating.confidence in UNSURE and wish["year"] is not None:
        dating = Dating(wish["year"], "the theme's list of works", "metadata")
    if refused := temporal_rule(dating, wish["death_year"], cutoff_year):
        return refused
    return {
        "title": title,
        "authors": list(wish["authors"] or header.authors),
        "birth_year": wish["birth_year"],
        "death_year": wish["death_year"],
        "language": found,
        "text": stripped.text,
        "body_start": stripped.body_start,
        "year": dating.year,
        "year_evidence": f"{dating.confidence}: {dating.evidence}",
        "encoding": decoded.encoding,
        "boilerplate_rule": stripped.rule,
    }


def table_of(row: Row) -> str:
    return "rejects" if row["reason"] else "books"


def summarise(run: Run) -> Manifest:
    ids = count_values(run.table("books").read_table(BOOKS, ["book_id"])["book_id"])
    if twice := [book_id for book_id, count in ids.items() if count > 1]:
        raise InputError(
            f"several books have the id {', '.join(sorted(twice)[:5])}",
            "Give each file or row its own name or id, and use --fresh.",
        )
    books = len(ids)
    rejected = count_values(run.table("rejects/acquire").read_table(REJECTS)["reason"])
    if books == 0:
        raise InputError(
            f"acquire kept no book ({counts_text(rejected) or 'nothing was found'})",
            f"`deepred inspect {run.name} rejects/acquire` tells why.",
        )
    return Manifest("acquire", "books", books + sum(rejected.values()), books, rejected, 0.0)
