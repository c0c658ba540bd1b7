"""Errors that a user can act on: what is wrong, and the way out. All survive pickling between Ray processes."""


class DeepredError(Exception):
    """An expected failure. Printed as one message without a traceback; the process exits with 1.

    `message` says what is wrong and names the file, row or setting; `cure` says what to do about it.
    """

    def __init__(self, message: str, cure: str = "") -> None:
        super().__init__(message, cure)
        self.message = message
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.message}\n  {self.cure}" if self.cure else self.message


class ConfigError(DeepredError, ValueError):
    """A setting that is unknown, of the wrong type or out of bounds."""


class InputError(DeepredError, ValueError):
    """An input file, table or folder that is missing or malformed."""


class StorageError(DeepredError, OSError):
    """An object store that does not answer, refuses our credentials, lacks the bucket, or fails."""


class StaleRunError(DeepredError):
    """A run folder whose rows were made with other identity settings than those asked for."""


class RunBusyError(DeepredError):
    """Another driver is writing to this run folder."""


class MirrorError(DeepredError, OSError):
    """The mirror does not answer, or refuses to serve us."""


class BusyError(MirrorError):
    """The mirror asks for a longer pause than a command waits."""


class BadBodyError(MirrorError):
    """The mirror answers, but not with the file, however often it is asked: `reason` names what came, `body` is what came."""

    def __init__(self, message: str, cure: str = "", reason: str = "", body: bytes = b"") -> None:
        super().__init__(message, cure)
        self.reason = reason
        self.body = body


class ModelError(DeepredError, OSError):
    """A base model, adapter or GGUF that is missing or cannot be loaded."""


class ShortfallError(DeepredError):
    """A stage ended with less than was asked for; what was made is kept."""


class LedgerError(DeepredError, AssertionError):
    """The counts of a stage do not add up: a row vanished without a reason. Always a bug of ours."""


LOSSES = {
    "WorkerCrashedError": "a worker process of Ray was lost",
    "ActorDiedError": "a worker process of Ray was lost",
    "ActorUnavailableError": "a worker process of Ray was lost",
    "NodeDiedError": "a node of the cluster was lost",
    "ObjectLostError": "a node of the cluster was lost, with data that it held",
    "OutOfMemoryError": "a node ran out of memory, and Ray ended a worker process there",
    "OutOfDiskError": "Ray's object store is full, and so is the disk that it spills to",
    "ObjectStoreFullError": "Ray's object store is full, and so is the disk that it spills to",
}
"""What errors of Ray mean that are nobody's fault here, by the name of their class."""


def loss(error: BaseException) -> DeepredError | None:
    """What an error of Ray tells of a process, node or store that failed the run; None for any other error."""
    said = next((LOSSES[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in LOSSES), None)
    if said is None:
        return None
    cause = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return DeepredError(f"{said}: {cause}", "The same command goes on: what is written is kept. The log of the run has the rest.")
