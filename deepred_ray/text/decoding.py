"""Bytes of a downloaded book to text: the bytes decide which encoding they are in."""

import codecs
import contextlib
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

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
_DECLARED = re.compile(
    rb"character set encoding:[ \t]*(?:(?:windows )?code[- ]?page[ -]?(?P<page>\d+)|cp-?(?P<cp>\d+)"
    rb"|(?:iso[ -]?(?=\d))?(?P<name>[\w-]+))",
    re.I,
)
_UTF8_SEQUENCE = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe1-\xef][\x80-\xbf]{2}|\xe0[\xa0-\xbf][\x80-\xbf]|\xf0[\x90-\xbf][\x80-\xbf]{2}"
)
# In a one-byte file these pairs are a piece of UTF-8 pasted in; guillemets after a capital A are the exception.
_PASTED_UTF8 = re.compile(rb"[\xc2\xc3][\x80-\xaa\xac-\xba\xbc-\xbf]|\xe2\x80[\x90-\xa6]")
_LATIN = ("cp1252", "cp437", "cp850", "mac-roman")
_CYRILLIC = ("koi8-r", "cp1251", "cp866", "iso8859-5", "mac-cyrillic")
# What files that declare an encoding are really in: mostly the system's own superset of it.
_SUPERSETS = {
    "big5": ("big5", "big5hkscs", "cp950"),
    "euc_kr": ("cp949",),
    "gb2312": ("gb18030",),
    "gbk": ("gb18030",),
    "iso8859-2": ("iso8859-2", "cp1250"),
    "iso8859-7": ("iso8859-7", "cp1253"),
    "iso8859-9": ("iso8859-9", "cp1254"),
    "shift_jis": ("shift_jis", "cp932"),
}
_DECLARABLE = re.compile(r"iso8859|cp(?:125|8\d\d|9\d\d)|koi8|mac|big5|gb|euc|shift|hz")
_LATIN_NAMES = {"iso8859-1", "cp1252", "iso8859-15"}
_COMMON_CYRILLIC = "оеаинтсрвляё"
_COMMON_SHARE = 0.4  # of all letters in Russian these are two thirds; read in a wrong encoding, a few in a hundred
_TYPOGRAPHIC = "\u2018\u2019\u201c\u201d\u2013\u2014…"
_SPELLED_BOM = "{~--- UTF-8 BOM ---~}"  # how some files spell out a mark that their encoding lacks
_C1 = frozenset(map(chr, (*range(0x80, 0x85), *range(0x86, 0xA0))))


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
    high = len(raw) - len(raw.translate(None, bytes(range(128, 256))))
    sequences = _UTF8_SEQUENCE.findall(raw)
    if len(sequences) > 4 * (high - sum(map(len, sequences))):
        return _checked("".join(_pieces(raw, _UTF8_SEQUENCE, "utf-8", "cp1252")), "utf-8")
    for declared in _declared_codecs(raw):
        with contextlib.suppress(UnicodeDecodeError):  # then the declaration is wrong, and the bytes are asked
            decoded = _checked(raw.decode(declared), declared)
            if isinstance(decoded, Decoded):
                return decoded
    letters = len(raw) - len(raw.translate(None, string.ascii_letters.encode()))
    contexts = _contexts(_PASTED_UTF8.sub(b" ", raw))
    # Whole words above 127 are of no Latin script; a line drawn in code page 437 repeats one byte.
    inner = sum(count for context, count in contexts.items() if min(context) > 127 and context[0] != context[1])
    if high > letters or inner > high // 3:
        return _decode_cyrillic(raw, f"{high} bytes above 127 to {letters} Latin letters")
    best = max(_LATIN, key=lambda encoding: _fit(contexts, encoding))  # a tie goes to the first
    text = "".join(_pieces(raw, _PASTED_UTF8, "utf-8", best)) if best == "cp1252" else raw.decode(best)
    return _checked(text, best)


def _decode_cyrillic(raw: bytes, found: str) -> Decoded | Reject:
    """Russian in the encoding in which its commonest letters come out in small type; else no encoding is known."""
    texts = {encoding: raw.decode(encoding, "replace") for encoding in _CYRILLIC}

    def share(encoding: str) -> float:
        text = texts[encoding]
        return sum(map(text.count, _COMMON_CYRILLIC)) / max(1, sum(char > "\x7f" for char in text))

    best = max(_CYRILLIC, key=share)
    if share(best) < _COMMON_SHARE or "\ufffd" in texts[best]:
        return Reject("undecodable", f"{found}, and no encoding that is declared or Russian fits")
    return _checked(texts[best], best)


def _declared_codecs(raw: bytes) -> tuple[str, ...]:
    """Python's names of the non-Latin encodings that the header can mean; none when it names none that Python knows."""
    match = _DECLARED.search(raw[:20_000])
    if match is None:
        return ()
    page = match["page"] or match["cp"]
    name = f"cp{page.decode()}" if page else match["name"].decode("ascii", "replace")
    try:
        codec = codecs.lookup(f"iso{name}" if name[0].isdigit() and "8859" in name else name).name
    except LookupError:
        return ()
    if codec in _LATIN_NAMES or codec in _CYRILLIC or not _DECLARABLE.match(codec):
        return ()
    return _SUPERSETS.get(codec, (codec,))


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


def _contexts(raw: bytes) -> dict[bytes, int]:
    """How often each byte above 127 stands between which neighbours: three bytes, a line end at the ends of the file."""
    codes = np.frombuffer(b"\n" + raw + b"\n", np.uint8).astype(np.uint32)
    at = np.flatnonzero(codes > 127)
    found, counts = np.unique(codes[at - 1] << 16 | codes[at] << 8 | codes[at + 1], return_counts=True)
    return {int(context).to_bytes(3, "big"): int(count) for context, count in zip(found, counts, strict=True)}


def _fit(contexts: dict[bytes, int], encoding: str) -> int:
    """Score of an encoding: letters that continue a word count for it, symbols and capitals inside words against."""
    return sum(count * _fit_of_char(context, encoding) for context, count in contexts.items())


def _fit_of_char(context: bytes, encoding: str) -> int:
    char = _decode_lenient(context[1:2], encoding)
    before, after = context[:1].decode("latin-1"), context[2:].decode("latin-1")
    in_word = before.isascii() and before.isalpha() and after.isascii() and after.isalpha()
    if char in _C1:
        return -3
    if char in "─═█░▒▓" and context[1] in (context[0], context[-1]):
        return 2  # a line is drawn with many of them
    if char in "ªºƒ" or "Ͱ" <= char <= "Ͽ" or "─" <= char <= "▟":
        return -1
    if char.islower():
        return 1 if before.isalpha() or after.isalpha() else 0
    if char.isupper():
        return -2 if before.islower() else 1 if after.isalpha() else 0
    if in_word and char not in "\u2019\u2013\u2014…":
        return -2
    return 1 if char in _TYPOGRAPHIC else 0


def _checked(text: str, encoding: str) -> Decoded | Reject:
    """Unify line ends and drop U+FEFF; text that still holds control or replacement characters was no such encoding."""
    text = text.replace("\ufeff", "").replace(_SPELLED_BOM, "").replace("\r\n", "\n")
    if "\r" in text:
        text = re.sub(r"\r+\n|\r", "\n", text)
    text = text.rstrip("\x1a")
    bad = None if text.isascii() else next((char for char in _C1 if char in text), None)
    if bad:
        return Reject("undecodable", f"control character U+{ord(bad):04X} at {text.index(bad)} read as {encoding}")
    if _HTML.match(text[:1_000].encode("utf-8", "replace")):
        return Reject("html_page", text[:60].strip())
    return Decoded(text, encoding)
