"""acquire: books from a Gutenberg mirror or from local files, without boilerplate, dated, in the wanted language.

INPUT   ids of books, or paths of local files
OUTPUT  books/ (schema.BOOKS), rejects/acquire/
fan-out one row a book; every wanted book is kept or rejected
"""

import contextlib
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import ray.data

from deepred_ray import metrics, mirror, placement
from deepred_ray.config import AcquireConfig, Config
from deepred_ray.console import Meter, counts_text, say
from deepred_ray.download import Downloader, is_loopback
from deepred_ray.errors import InputError, MirrorError, ShortfallError
from deepred_ray.runs import Manifest, Run
from deepred_ray.schema import BOOKS, REJECTS
from deepred_ray.stages.fetch import FAULTS, PASSING, TRIES_A_ROUND, FetchBooks, politeness
from deepred_ray.stages.local import is_new, local_rows
from deepred_ray.stages.selection import Wish, catalogue_sha, choose
from deepred_ray.stages.tables import Row, ShardWriter, write
from deepred_ray.storage import count_values
from deepred_ray.text import decoding, gutenberg
from deepred_ray.text.dating import Dating, date_work, temporal_rule
from deepred_ray.text.language import language
from deepred_ray.text.reject import Reject
from deepred_ray.theme import Theme

QUARANTINED_CHARS = 4_000  # of what came instead of a book
GONE_PAUSE_S = 30.0
BOOKS_A_SHARD = 8
UNSURE = ("edition", "author_life", "none")  # dates that only bound the year of publication


@dataclass(frozen=True)
class DatingRule:
    """The year that is out, years of first publication by Gutenberg id, and whether a work that nothing dates may stay."""

    cutoff_year: int
    years: Mapping[str, int]
    keep_undatable: bool


def run(run: Run, config: Config, theme: Theme) -> Manifest:
    """Fetch or read what is not there yet.

    Raises:
        MirrorError, ShortfallError: the mirror or some of its books do not answer; books that arrived are kept.
        InputError: a local input does not exist, or nothing was asked for.
    """
    settings = config.acquire
    years = {str(book_id): work.year for book_id, work in theme.priority_works.items()}
    rule = DatingRule(theme.cutoff_year, years, settings.keep_undatable)
    read = partial(read_book, wanted_language=settings.language, rule=rule)
    if settings.input:
        done = ids_there(run, PASSING)
        local = local_rows(settings.input).filter(partial(is_new, done=done))
        save(run, local.map(read, **placement.options(settings.resources)), len(done), None)
        return summarise(run)
    with contextlib.ExitStack() as stack:
        base = stack.enter_context(mirror.serve_samples()) if settings.mirror == "sample" else settings.mirror
        if not settings.contact and not is_loopback(base):
            say("  [yellow]no contact[/yellow]: --acquire.contact EMAIL lets the mirror's operator write instead of blocking")
        wishes = choose(settings, theme, Downloader(base, **politeness(settings)), run)
        fetch(run, wishes, base, settings, read)
    refuse_shortfall(run, base)
    return summarise(run)


def fetch(run: Run, wishes: list[Wish], base: str, settings: AcquireConfig, read: Callable[[Row], Row]) -> None:
    """Fetch the books that are not there, in rounds: those that failed come again when all others had their turn."""
    rounds = -(-(settings.retries + 1) // TRIES_A_ROUND)
    for number in range(rounds):
        done = ids_there(run, FAULTS if number else PASSING)
        missing = [wish for wish in wishes if wish.book_id not in done]
        if not missing:
            return
        words = "did not arrive; asking again" if number else f"to fetch from {base}, {settings.delay:g} s between requests"
        say(f"  {len(missing)} of {len(wishes)} books {words}")
        rows = ray.data.from_items(
            [{"wish": json.dumps(asdict(wish))} for wish in missing],
            override_num_blocks=min(len(missing), 4000),
        ).map_batches(
            FetchBooks,
            fn_constructor_args=(base, politeness(settings)),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=1),  # one actor a host keeps the pause between requests
            **(placement.beside_driver() if is_loopback(base) else {"num_cpus": placement.FETCHING_CPUS}),
        )
        counts = save(run, rows.map(read, **placement.options(settings.resources)), len(done), len(wishes))
        if counts["mirror_busy"] or (counts["mirror_gone"] and counts.total() == sum(counts[reason] for reason in FAULTS)):
            return
        if counts["mirror_gone"] and number + 1 < rounds:
            say(f"  the mirror went away; {GONE_PAUSE_S:.0f} s of patience")
            time.sleep(GONE_PAUSE_S)


def save(run: Run, books: ray.data.Dataset, done: int, wanted: int | None) -> Counter[str]:
    """Write rows of `read_book` to their tables; how many there were of each reason, "" for books that are kept."""
    writer = ShardWriter(
        "acquire",
        {"books": (run.table("books"), BOOKS), "rejects": (run.table("rejects/acquire"), REJECTS)},
        sort=table_of,
        key="book_id",
    )
    reasons: Counter[str] = Counter()
    growing = metrics.Growing()
    with Meter("acquire", wanted, "books") as meter:
        for counts in write(books, writer, BOOKS_A_SHARD):
            reasons = Counter({reason: count for (_, reason), count in counts.items()})
            growing.rows(reasons)
            meter.update(done + counts.total(), counts_text({reason: count for reason, count in reasons.items() if reason}))
    return reasons


def refuse_shortfall(run: Run, base: str) -> None:
    """Raises MirrorError or ShortfallError if the road kept books back; one whose file is wrong however often is no such."""
    rejects = run.table("rejects/acquire").read_table(REJECTS)
    rejected = Counter(rejects["reason"].to_pylist())
    for reason in ("mirror_busy", "mirror_gone"):
        if rejected[reason]:
            last_words = next(row["detail"] for row in rejects.to_pylist() if row["reason"] == reason)
            raise MirrorError(
                f"mirror {base} went away, {rejected[reason]} books or more are missing: {last_words}",
                f"Wait and repeat the command: what arrived is kept. `deepred inspect {run.name} rejects/acquire` names them.",
            )
    if failed := rejected["download_failed"] + rejected["cut_short"]:
        raise ShortfallError(
            f"{failed} books did not arrive, though the mirror {base} has an answer for others",
            f"Repeat the command to try them again. `deepred inspect {run.name} rejects/acquire` names them.",
        )


def ids_there(run: Run, passing: tuple[str, ...]) -> frozenset[str]:
    """Books that need not be fetched again. Rejects for a `passing` reason are forgotten, and their books tried anew."""
    rejects = run.table("rejects/acquire")
    old = rejects.read_table(REJECTS)
    lasting = [row for row in old.to_pylist() if row["reason"] not in passing]
    if len(lasting) < old.num_rows:
        rejects.delete()
        if lasting:
            rejects.write_table(pa.Table.from_pylist(lasting, REJECTS), "lasting")
    books = run.table("books").read_table(BOOKS, ["book_id"])
    return frozenset(books["book_id"].to_pylist()) | {row["id"] for row in lasting}


def read_book(row: Row, wanted_language: str, rule: DatingRule) -> Row:
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
    outcome = Reject(row["problem"], row["url"]) if row["problem"] else open_book(row["raw"], wish, wanted_language, rule)
    if isinstance(outcome, Reject):
        detail = f"{wish['title']}: {outcome.detail}" if wish["title"] else outcome.detail
        return book | {"reason": outcome.reason, "detail": detail, "raw": quarantined(row["raw"])}
    return book | outcome


def quarantined(raw: bytes) -> str | None:
    """The head of what came instead of a book, as a person can read it."""
    head = raw[: 4 * QUARANTINED_CHARS].decode("utf-8", "replace")[:QUARANTINED_CHARS]
    return (raw[:QUARANTINED_CHARS].decode("cp1252", "replace") if "\ufffd" in head else head) or None


def open_book(raw: bytes, wish: dict[str, Any], wanted_language: str, rule: DatingRule) -> Row | Reject:
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
    if dating.confidence in UNSURE:
        if wish["year"] is not None:
            dating = Dating(wish["year"], "the input's own year", "metadata")
        elif number := rule.years.keys() & {wish["book_id"], header.ebook_id}:
            dating = Dating(rule.years[number.pop()], "the theme's list of works", "metadata")
    refused = temporal_rule(dating, wish["death_year"], rule.cutoff_year)
    if refused and not (refused.reason == "undatable" and rule.keep_undatable):
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
        "year_evidence": dating.evidence,
        "year_confidence": dating.confidence,
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
    # None where no catalogue was needed: local files, or a mirror without one.
    outputs = {"catalogue_sha256": catalogue_sha(run)}
    return Manifest("acquire", "books", books + sum(rejected.values()), books, rejected, 0.0, outputs)
