"""JSON that others wrote: a line of a file, or a reply of a model."""

import json
from typing import Any


def json_value(text: str | bytes) -> Any:
    """What a JSON text says. Raises ValueError for whatever cannot be read, also for numbers too long and lists too deep."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(f"too deep: {error}") from error
