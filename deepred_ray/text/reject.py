"""Why a row was dropped: the one value that every pure step returns instead of a result."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reject:
    """A named reason for dropping a row.

    `reason` is a short stable snake_case word that is counted in manifests; `detail` says what was seen, for a person.
    """

    reason: str
    detail: str = ""
