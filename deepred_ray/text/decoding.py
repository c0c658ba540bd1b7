"""Bytes of a downloaded book to text: the bytes decide which encoding they are in."""

import codecs
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass

from deepred_ray.text.reject import Reject


@dataclass(frozen=True, slots=True)
class Decoded:
    """Text with `\\n` line ends and no U+FEFF, and the Python codec name that gave it."""

    text: str
    encoding: str


_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HTML = re.compile(rb"\s*(?:<!--.*?-->\s*)?<(?:!doctype\s+html|html|head|body|script|meta|title|\?xml)\b", re.I | re.S)
_DECLARED = re.compile(rb"character set encoding:[ \t]*(?:iso[ -]?(?=\d))?([\w-]+)", re.I)
_HIGH = re.compile(rb"[\x80-\xff]")
_UTF8_SEQUENCE = rb"[\xc2-\xdf][\x80-\xbf]|[\xe1-\xef][\x80-\xbf]{2}|\xe0[\xa0-\xbf][\x80-\xbf]|\xf0[\x90-\xbf][\x80-\xbf]{2}"
_UTF8_OR_STRAY = re.compile(rb"(" + _UTF8_SEQUENCE + rb")|[\x80-\xff]")
# In a one-byte file these pairs are a piece of UTF-8 pasted in; guillemets after a capital A are the exception.
_PASTED_UTF8 = re.compile(rb"[\xc2\xc3][\x80-\xaa\xac-\xba\xbc-\xbf]|\xe2\x80[\x90-\xa6]")
_ONE_BYTE = ("cp1252", "cp437", "cp850")
_LATIN_NAMES = {"ascii", "iso8859-1", "cp1252", "utf-8", "iso8859-15"}
_TYPOGRAPHIC = "\u2018\u2019\u201c\u201d\u2013\u2014…"
_SPELLED_BOM = "{~--- UTF-8 BOM ---~}"  # how some files spell out a mark that their encoding lacks
_C1 = re.compile("[\x80-\x84\x86-\x9f]")


def decode(raw: bytes) -> Decoded | Reject:
    """Decode a downloaded file; the bytes decide, the declared encoding only names a non-Latin code page.

    Tried in turn: byte order marks, UTF-8, the declared non-Latin encoding, then the one-byte encodings (cp1252, DOS
    437 and 850) by how well their letters sit inside words. Line ends become `\\n`, U+FEFF is removed and
    nothing is normalised.

    Rejects: `empty_file`, `html_page`, `binary_file`, `undecodable`.
    """
    if not raw.strip(b"\x00\x1a\r\n\t \xef\xbb\xbf"):
        return Reject("empty_file", f"{len(raw)} bytes")
    for bom, encoding in _BOMS:
        if raw.startswith(bom):
            try:
                return _checked(raw.decode(encoding), encoding)
            except UnicodeDecodeError as error:
                if encoding != "utf-8":
                    return Reject("undecodable", str(error))
                raw = raw[len(bom) :]
            break
    if _HTML.match(raw[:4_000]):
        return Reject("html_page", raw[:60].decode("latin-1").strip())
    if b"\x00" in raw or len(re.findall(rb"[\x01-\x08\x0e-\x19\x1b-\x1f]", raw[:65_536])) > len(raw[:65_536]) // 200:
        return Reject("binary_file", f"control bytes near {raw[:20]!r}")
    try:
        return _checked(raw.decode("utf-8"), "utf-8")
    except UnicodeDecodeError:
        return _decode_one_byte(raw)


def _decode_one_byte(raw: bytes) -> Decoded | Reject:
    """What is not UTF-8: damaged UTF-8, a declared code page, or the one-byte encoding that fits best."""
    matches = list(_UTF8_OR_STRAY.finditer(raw))
    whole = sum(1 for match in matches if match[1])
    if whole > 4 * (len(matches) - whole):
        text = "".join(_pieces(raw, re.compile(_UTF8_SEQUENCE), "utf-8", "cp1252"))
        return _checked(text, "utf-8")
    declared = _declared_codec(raw)
    if declared is not None and declared not in _LATIN_NAMES:
        try:
            return _checked(raw.decode(declared), declared)
        except UnicodeDecodeError:
            pass  # the declaration is wrong, so the bytes are asked
    letters = len(raw) - len(raw.translate(None, string.ascii_letters.encode()))
    high = len(raw) - len(raw.translate(None, bytes(range(128, 256))))
    if high > letters // 3:
        return Reject("undecodable", f"{high} bytes above 127 to {letters} Latin letters and no declared encoding fits")
    best = max(_ONE_BYTE, key=lambda encoding: _fit(raw, encoding))  # a tie goes to the first
    text = "".join(_pieces(raw, _PASTED_UTF8, "utf-8", best)) if best == "cp1252" else raw.decode(best)
    return _checked(text, best)


def _declared_codec(raw: bytes) -> str | None:
    """The Python name of the encoding that the header names, or None when there is none that Python knows."""
    match = _DECLARED.search(raw[:20_000])
    if match is None:
        return None
    name = match[1].decode("ascii", "replace")
    try:
        return codecs.lookup(f"iso{name}" if name[0].isdigit() and "8859" in name else name).name
    except LookupError:
        return None


def _pieces(raw: bytes, inner: re.Pattern[bytes], inner_encoding: str, encoding: str) -> Iterator[str]:
    """Decode the matches of `inner` in one encoding and all between them in another; unmapped bytes become C1."""
    position = 0
    for match in inner.finditer(raw):
        yield _decode_lenient(raw[position : match.start()], encoding)
        yield match[0].decode(inner_encoding, "replace")
        position = match.end()
    yield _decode_lenient(raw[position:], encoding)


def _decode_lenient(raw: bytes, encoding: str) -> str:
    """Decode, with the five bytes that cp1252 leaves free as the C1 controls they are in Latin-1."""
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError:
        return "".join(bytes([byte]).decode(encoding, "ignore") or chr(byte) for byte in raw)


def _fit(raw: bytes, encoding: str) -> int:
    """Score of an encoding: letters that continue a word count for it, symbols and capitals inside words against."""
    score = 0
    for match in _HIGH.finditer(raw):
        at = match.start()
        char = _decode_lenient(match[0], encoding)
        before, after = raw[at - 1 : at].decode("latin-1"), raw[at + 1 : at + 2].decode("latin-1")
        in_word = before.isascii() and before.isalpha() and after.isascii() and after.isalpha()
        if _C1.match(char):
            score -= 3
        elif char in "ªºƒ" or "Ͱ" <= char <= "Ͽ":
            score -= 1
        elif char.islower():
            score += 1 if before.isalpha() or after.isalpha() else 0
        elif char.isupper():
            score += -2 if before.islower() else 1 if after.isalpha() else 0
        elif in_word and char not in "\u2019\u2013\u2014…":
            score -= 2
        elif char in _TYPOGRAPHIC:
            score += 1
        elif char in "─│┌┐└┘├┤┬┴┼═║█▓▒░":
            score -= 1
    return score


def _checked(text: str, encoding: str) -> Decoded | Reject:
    """Unify line ends and drop U+FEFF; text that still holds control or replacement characters was no such encoding."""
    text = text.replace("\ufeff", "").replace(_SPELLED_BOM, "").replace("\r\n", "\n")
    if "\r" in text:
        text = re.sub(r"\r+\n|\r", "\n", text)
    text = text.rstrip("\x1a")
    bad = None if text.isascii() else _C1.search(text)
    if bad:
        return Reject("undecodable", f"control character U+{ord(bad[0]):04X} at {bad.start()} read as {encoding}")
    if _HTML.match(text[:1_000].encode("utf-8", "replace")):
        return Reject("html_page", text[:60].strip())
    return Decoded(text, encoding)
