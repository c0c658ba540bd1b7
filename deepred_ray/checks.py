"""What the doctor found: a line a check."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One line of the report. Not `ok`: it will not work, and `cure` says what to do. With a cure and `ok` it works, but badly."""

    name: str
    ok: bool
    found: str
    cure: str = ""


def show(checks: Sequence[Check]) -> int:
    """Print a line a check, with the cure under it; 1 if anything is not ok."""
    for check in checks:
        mark = "NOT" if not check.ok else "but" if check.cure else "ok "
        print(f"{mark}  {check.name:<22} {check.found}")
        if check.cure:
            print(f"{'':27}cure: {check.cure}")
    return 0 if all(check.ok for check in checks) else 1
