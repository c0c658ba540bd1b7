"""`deepred check-era`: which lines of a file could not have been written before the theme's cutoff year."""

import codecs
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from deepred_ray.errors import InputError
from deepred_ray.text.anachronism import Gate
from deepred_ray.theme import Theme


def check(name: str, theme: str) -> int:
    """Print a JSON object for each line of file `name` (`-`: the standard input); 1 if any line is not ok, else 0.

    Raises:
        InputError: the file cannot be read, or is not UTF-8; the message names the line.
    """
    gate = Theme.find(theme).era
    every = True
    try:
        with sys.stdin.buffer if name == "-" else Path(name).expanduser().open("rb") as file:
            for number, line in enumerate(lines(file, name), 1):
                found = verdict(gate, number, line)
                every = every and found["ok"]
                print(json.dumps(found, ensure_ascii=False))
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has seen enough; the interpreter must not complain when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror or error}") from error
    return 0 if every else 1


def lines(file: BinaryIO, name: str) -> Iterator[str]:
    """Lines as an editor counts them: only a line feed ends one, and a carriage return before it is not part of it."""
    for number, raw in enumerate(file, 1):
        if number == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        try:
            yield raw.removesuffix(b"\n").removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            raise InputError(f"{name}, line {number}: not UTF-8: {error.reason}", "Convert it, for instance with iconv.") from error


def verdict(gate: Gate, number: int, line: str) -> dict[str, Any]:
    """`line` (its number), its `text`, `ok`, and `hits`, each with the term, its first year and why it was taken for modern."""
    hits = [{"term": hit.term, "year": hit.year, "reason": hit.reason} for hit in gate.hits(line)]
    return {"line": number, "ok": not hits, "hits": hits, "text": line}
