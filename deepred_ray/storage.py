"""Files of a run, on a local or shared path or on any URI that pyarrow opens. Every write is whole or absent.

Credentials of an object store come from the environment of each process, never from a URI: nothing here holds or pickles one.
"""

import contextlib
import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from deepred_ray.errors import DeepredError, InputError, StorageError

Made = TypeVar("Made")
PAUSES_S = (0.5, 1.0, 2.0)
# pyarrow's own retries do not help where an error's text is longer than the bytes that were asked for (INTERNAL_FAILURE).
PASSING = re.compile(
    r"AWS Error (INTERNAL_FAILURE|SLOW_DOWN|SERVICE_UNAVAILABLE|NETWORK_CONNECTION|REQUEST_TIMEOUT)|HTTP status 5\d\d"
)
REFUSED = re.compile(r"AWS Error \w*(ACCESS|SIGNATURE|CREDENTIAL|TOKEN|AUTH)|HTTP status 40[13]\b")
NO_BUCKET = re.compile(r"AWS Error NO_SUCH_BUCKET|^Bucket '\S+' not found")
NO_ANSWER = re.compile(r"AWS Error (NETWORK_CONNECTION|REQUEST_TIMEOUT)|curlCode")


@dataclass(frozen=True)
class Folder:
    """A folder on a filesystem. Picklable; cheap to make; exists once something is written into it."""

    filesystem: fs.FileSystem
    path: str

    @classmethod
    def open(cls, root: str) -> "Folder":
        """Raises InputError for a URI that pyarrow does not know, or that holds credentials."""
        if "://" not in root:
            return cls(fs.LocalFileSystem(), str(Path(root).expanduser().resolve()))
        parts = urlsplit(root)
        if "@" in parts.netloc:
            raise InputError(
                f"data root {parts.scheme}://...: a URI that holds credentials would be written into every run",
                "Leave them out of it and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment.",
            )
        try:
            filesystem, path = fs.FileSystem.from_uri(s3_uri(root) if parts.scheme == "s3" else root)
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(
                f"data root {parts.scheme}://{parts.netloc}{parts.path}: {error}",
                "Use a folder, or a URI such as s3://bucket/folder.",
            ) from error
        return cls(filesystem, path.rstrip("/"))

    def __truediv__(self, name: str) -> "Folder":
        return Folder(self.filesystem, f"{self.path}/{name}")

    @property
    def local(self) -> bool:
        return isinstance(self.filesystem, fs.LocalFileSystem)

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    @property
    def size(self) -> int:
        """Bytes of this file."""
        return int(self.tried(lambda: self.filesystem.get_file_info(self.path).size))

    def tried(self, work: Callable[[], Made]) -> Made:
        """What `work` returns. An object store's passing faults are waited out, so `work` may be done more than once.

        Raises:
            StorageError: the object store refuses, or still fails. What is missing stays a FileNotFoundError.
        """
        for pause in (*PAUSES_S, None):
            try:
                return work()
            except OSError as error:
                if self.local or isinstance(error, StorageError | FileNotFoundError):
                    raise
                if pause is None or not PASSING.search(str(error)):
                    raise explained(self.path, str(error)) from error
            time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def require(self) -> None:
        """Raises StorageError unless the object store answers, takes our credentials and has the bucket."""
        if not self.local and not self.exists() and not Folder(self.filesystem, self.path.split("/")[0]).exists():
            raise explained(self.path, "AWS Error NO_SUCH_BUCKET")

    def exists(self) -> bool:
        return bool(self.tried(lambda: self.filesystem.get_file_info(self.path).type != fs.FileType.NotFound))

    def files(self, suffix: str = "") -> list["Folder"]:
        """Files directly inside, by name, without those that are still being written."""
        return [
            Folder(self.filesystem, info.path)
            for info in self.inside()
            if info.type == fs.FileType.File and info.base_name.endswith(suffix) and not info.base_name.startswith(".")
        ]

    def folders(self) -> list["Folder"]:
        return [Folder(self.filesystem, info.path) for info in self.inside() if info.type == fs.FileType.Directory]

    def inside(self) -> list[Any]:
        found = self.tried(lambda: self.filesystem.get_file_info(fs.FileSelector(self.path, allow_not_found=True)))
        return sorted(found, key=lambda info: str(info.path))

    def delete(self) -> None:
        def remove() -> None:
            kind = self.filesystem.get_file_info(self.path).type
            if kind == fs.FileType.Directory:
                self.filesystem.delete_dir(self.path)
            elif kind == fs.FileType.File:
                self.filesystem.delete_file(self.path)

        self.tried(remove)

    def read_bytes(self) -> bytes:
        def read() -> bytes:
            with self.filesystem.open_input_stream(self.path, compression=None) as stream:
                return bytes(stream.read())

        return self.tried(read)

    def write_bytes(self, data: bytes) -> None:
        """Replace this file at once: a reader sees the old bytes or the new ones, never a part.

        Raises:
            DeepredError: the folder cannot be written, or the disk is full. StorageError: the object store failed.
        """
        if not self.local:
            self.tried(lambda: self._upload(data))
            return
        parent, name = self.path.rsplit("/", 1)
        draft = f"{parent}/.{name}.{uuid.uuid4().hex[:8]}"
        try:
            self.filesystem.create_dir(parent, recursive=True)
            with self.filesystem.open_output_stream(draft, compression=None) as stream:
                stream.write(data)
            os.replace(draft, self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                Path(draft).unlink()
            raise DeepredError(
                f"cannot write {self.path}: {error}", "Choose a --data-root with room that you may write to."
            ) from error

    def _upload(self, data: bytes) -> None:
        # S3 shows an object only when its upload is complete, and needs no folder made for it.
        if not isinstance(self.filesystem, fs.S3FileSystem):
            self.filesystem.create_dir(self.path.rsplit("/", 1)[0], recursive=True)
        with self.filesystem.open_output_stream(self.path, compression=None) as stream:
            stream.write(data)

    def parquet(self) -> pq.ParquetFile:
        """This file, open; one in an object store is fetched whole, which is one request instead of many."""
        if self.local:
            return pq.ParquetFile(self.path)
        return pq.ParquetFile(pa.BufferReader(self.read_bytes()))

    def read_json(self) -> Any:
        try:
            return json.loads(self.read_bytes())
        except ValueError as error:
            raise InputError(f"{self.path} is not JSON: {error}") from error

    def write_json(self, value: Any) -> None:
        self.write_bytes(json.dumps(value, indent=2, ensure_ascii=False, default=str).encode() + b"\n")

    def write_table(self, table: pa.Table, name: str) -> None:
        """Write one Parquet file of this table's folder; the same name replaces the same rows."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        (self / f"{name}.parquet").write_bytes(sink.getvalue().to_pybytes())

    def read_table(self, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows of this table's folder, an empty table where there is none.

        Raises:
            InputError: a file has other columns, or is no Parquet; the message names it.
        """
        wanted = pa.schema([schema.field(name) for name in columns]) if columns else schema
        return pa.concat_tables([file.read_shard(wanted) for file in self.files(".parquet")] or [wanted.empty_table()])

    def read_shard(self, wanted: pa.Schema) -> pa.Table:
        """The wanted columns of one Parquet file. Raises InputError as `read_table` does."""
        try:
            # Half the time of `read_table`, which first looks for a dataset.
            with self.parquet() as file:
                return file.read(columns=wanted.names).select(wanted.names).cast(wanted)
        except StorageError:
            raise
        except (pa.ArrowInvalid, pa.ArrowTypeError, KeyError, ValueError, OSError) as error:  # a damaged file is an OSError
            raise InputError(f"{self.path} is not a table with columns {', '.join(wanted.names)}: {error}") from error


def s3_uri(root: str) -> str:
    """The URI with what pyarrow is to be told besides: the region of the environment, and that a small object is one PUT."""
    parts = urlsplit(root)
    told = {"allow_delayed_open": "true"}
    if region := os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"):
        told["region"] = region
    return urlunsplit(parts._replace(query=urlencode(told | dict(parse_qsl(parts.query)))))


def explained(path: str, fault: str) -> StorageError:
    """What an object store said of `path`, and the way out."""
    bucket = path.split("/")[0]
    if NO_BUCKET.search(fault):
        return StorageError(
            f"there is no bucket {bucket}", "Make it, or name another --data-root. AWS_ENDPOINT_URL says which server is asked."
        )
    if REFUSED.search(fault):
        # The server's own words may name the key.
        return StorageError(
            f"the object store refuses access to {path}",
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must be set and right on every node, and may list, read, write and delete "
            "there.",
        )
    if NO_ANSWER.search(fault):
        return StorageError(
            f"the object store does not answer (asked for {path})",
            "Check AWS_ENDPOINT_URL and the network. The same command goes on from what is there.",
        )
    return StorageError(f"the object store failed at {path}: {fault}", "The same command goes on from what is there.")


def refuse_extensions(schema: pa.Schema, path: Path) -> None:
    """Raises InputError for a column of an extension type, in a table that others made: reading Ray's own type of objects
    unpickles them, and so runs what code they hold."""
    found = [field.name for field in schema if isinstance(field.type, pa.BaseExtensionType) or "extension<" in str(field.type)]
    if found:
        raise InputError(
            f"{path}: {', '.join(found)}: a column of an extension type, which may hold pickled objects",
            "Write the table anew with plain columns: text, numbers, lists.",
        )


def shard_name(ids: Iterable[str]) -> str:
    """A file name that is a function of the rows inside, so that a repeated task replaces its own file."""
    return hashlib.sha256("\0".join(ids).encode()).hexdigest()[:16]


def rows_table(rows: Sequence[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table of exactly this schema.

    Raises:
        InputError: a row lacks a column or has one too many.
    """
    names = set(schema.names)
    for row in rows:
        if set(row) != names:
            raise InputError(f"a row has other columns than its table: {sorted(names ^ set(row))}")
    return pa.Table.from_pylist(list(rows), schema=schema)


def count_values(column: pa.ChunkedArray) -> dict[str, int]:
    """How often each value occurs, nulls left out."""
    return {str(item["values"]): int(item["counts"]) for item in pc.value_counts(column.drop_null()).to_pylist()}


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
