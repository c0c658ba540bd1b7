"""How a theme's answers speak: what they say of themselves, and what never passes their lips."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from deepred_ray.text.reject import Reject

NUMERAL: Final = re.compile(r"\b[A-Z][a-z]+ I\b(?! [a-z])")
"""Part I, Nicholas I."""


@dataclass(frozen=True, slots=True)
class Speech:
    """`says` finds the words of the theme's own voice, in any case, of which an answer needs `least`; `never` finds, in the case
    given, what it does not say, if there is such; `label` is the speaker's name before a colon, as of a script."""

    says: re.Pattern[str]
    least: int
    never: re.Pattern[str] | None
    label: re.Pattern[str]

    def fault(self, answer: str) -> Reject | None:
        """Why an answer speaks in another voice than the theme's, or None."""
        if self.never and (found := self.never.search(NUMERAL.sub("", answer))):
            return Reject("out_of_character", f"speaks as {found[0]}")
        if (times := len(self.says.findall(answer))) < self.least:
            return Reject("out_of_character", f"{times} words of its own voice, {self.least} wanted")
        return None


def parse_speech(facts: Mapping[str, Any]) -> Speech:
    """The `[speech]` of theme.toml, whose lists hold regular expressions of whole words. Raises ValueError saying what is wrong."""
    try:
        table = facts["speech"]
        never = table.get("never", [])
        says, least = re.compile(_whole_words(table["says"]), re.I), int(table["least"])
        refused = re.compile(_whole_words(never)) if never else None
        label = re.compile(rf"^\s*{re.escape(facts['title'])}\s*:", re.M | re.I)
    except KeyError as error:
        raise ValueError(f"[speech] or the title: {error} is missing") from error
    except (TypeError, AttributeError, ValueError, re.error) as error:
        raise ValueError(f"[speech]: {error}") from error
    return Speech(says, least, refused, label)


def _whole_words(patterns: list[str]) -> str:
    if not isinstance(patterns, list) or not patterns or not all(isinstance(pattern, str) and pattern for pattern in patterns):
        raise ValueError(f"expected a list of patterns, found {patterns!r}")
    return rf"\b(?:{'|'.join(patterns)})\b"
