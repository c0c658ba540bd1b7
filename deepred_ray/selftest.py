"""Does this engine enforce a JSON schema? Asked before the first slot: an option that is silently ignored would spoil them all."""

import json
from typing import Any

from deepred_ray.engine import Sampling
from deepred_ray.text.jsonl import json_value

COLOURS = ("vermilion", "ultramarine")
WORD_CHARS = (3, 12)
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "colour": {"type": "string", "enum": list(COLOURS)},
            "word": {"type": "string", "minLength": WORD_CHARS[0], "maxLength": WORD_CHARS[1]},
        },
        "required": ["colour", "word"],
        "additionalProperties": False,
    }
)
# Nobody who is free to choose answers this in JSON.
QUESTION = "Write the first sentences of a story about a dog that crosses a river. Write prose, not JSON."


async def enforces_schema(engine: Any) -> str | None:
    """What is wrong with a reply that the schema does not allow, or None if the engine keeps to it: one request, temperature 0."""
    reply = await engine.chat([{"role": "user", "content": QUESTION}], Sampling(max_tokens=96, schema=SCHEMA))
    if reply.finish_reason != "stop":
        return f"the reply ended by {reply.finish_reason}: {reply.text[:80]!r}"
    try:
        found = json_value(reply.text)
    except ValueError:
        return f"the reply is no JSON: {reply.text[:80]!r}"
    if not isinstance(found, dict) or found.keys() != {"colour", "word"}:
        return f"the reply has other keys: {reply.text[:80]!r}"
    if found["colour"] not in COLOURS:
        return f"a value is none of those allowed: {found['colour']!r}"
    if not isinstance(found["word"], str) or not WORD_CHARS[0] <= len(found["word"]) <= WORD_CHARS[1]:
        return f"a string has not {WORD_CHARS[0]} to {WORD_CHARS[1]} characters: {found['word']!r}"
    return None
