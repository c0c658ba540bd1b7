"""Which encoding a file is in, and what is no text at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.text.decoding import Decoded, decode
from deepred_ray.text.reject import Reject


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("Café \u2013 \u201cso\u201d".encode(), "Café \u2013 \u201cso\u201d"),
        (b"\xef\xbb\xbfplain\r\ntext\r", "plain\ntext\n"),
        ("a\ufeffb".encode(), "ab"),
        ("wide é".encode("utf-16"), "wide é"),
        (b"\xfe\xff" + "wide é".encode("utf-16-be"), "wide é"),
        (b"It was the engineer\x92s \x93iron\x94 caf\xe9.", "It was the engineer\u2019s \u201ciron\u201d café."),
        (b"It stood\x97at last\x97still.", "It stood\u2014at last\u2014still."),
        (b"It cost \xa32,000 at 10\xb0 C.", "It cost £2,000 at 10° C."),
        (
            "Der Bär aß früh im Café; où, là, très bien, señor.".encode("cp437"),
            "Der Bär aß früh im Café; où, là, très bien, señor.",
        ),
        (b"two\r\r\nlines\x1a", "two\nlines"),
        (b"Thanks to Carlos Col\xc3\xb3n for the f\xeate.", "Thanks to Carlos Colón for the fête."),
        ("é à ü ö ß \u2013 ".encode() * 3 + b"and one stray \xe9.", "é à ü ö ß \u2013 " * 3 + "and one stray é."),
        (
            "Character set encoding: KOI8-R\n\nЗима была долгой.".encode("koi8-r"),
            "Character set encoding: KOI8-R\n\nЗима была долгой.",
        ),
    ],
)
def test_bytes_decide(raw: bytes, text: str) -> None:
    decoded = decode(raw)
    assert isinstance(decoded, Decoded), decoded
    assert decoded.text == text


def test_declared_ascii_does_not_hide_cp1252() -> None:
    decoded = decode(b"Character set encoding: ASCII\n\nthe friend\x92s fa\xe7ade")
    assert decoded == Decoded("Character set encoding: ASCII\n\nthe friend\u2019s façade", "cp1252")


RUSSIAN = "Инженер прошёл по длинной галерее и сосчитал лампы, которые ещё горели в темноте."
ENGLISH = "The engineer walked through the long gallery.\n" * 40


@pytest.mark.parametrize("encoding", ["koi8-r", "cp1251", "cp866", "iso8859-5", "mac-cyrillic"])
@pytest.mark.parametrize("before", ["", "Character set encoding: KOI8-R\n\n", ENGLISH])
def test_russian_is_known_by_its_letters(encoding: str, before: str) -> None:
    text = before + RUSSIAN
    assert decode(text.encode(encoding)) == Decoded(text, encoding)


@pytest.mark.parametrize(
    ("declared", "encoding", "text"),
    [
        ("ISO-8859-2", "iso8859-2", "Inżynier przeszedł przez długą galerię."),
        ("ISO-8859-2", "cp1250", "\u201eInżynier\u201d przeszedł przez długą galerię."),
        ("Windows Code Page 1250", "cp1250", "\u201eInżynier\u201d przeszedł przez długą galerię."),
        ("CP-1250", "cp1250", "\u201eInżynier\u201d przeszedł przez długą galerię."),
        ("ISO-8859-7", "iso8859-7", "Ο μηχανικός περπάτησε"),
        ("Big5", "big5", "工程師走過長長的走廊"),
        ("GB2312", "gb18030", "工程师走过长长的走廊"),
        ("Shift-JIS", "shift_jis", "技師は長い廊下を歩いた。"),
        ("EUC-KR", "cp949", "기술자는 긴 복도를 걸었다"),
    ],
)
def test_declared_code_pages(declared: str, encoding: str, text: str) -> None:
    text = f"Character set encoding: {declared}\n\n{text}"
    assert decode(text.encode(encoding)) == Decoded(text, encoding)


@pytest.mark.parametrize("declared", ["rot13", "base64", "undefined", "utf-7", "no-such-encoding", "ISO-8859-7x"])
def test_a_declaration_that_is_no_encoding_of_text_is_ignored(declared: str) -> None:
    text = f"Character set encoding: {declared}\n\ncafé noir"
    assert decode(text.encode("cp1252")) == Decoded(text, "cp1252")


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "mac-roman"])
@pytest.mark.parametrize(
    "text",
    [
        "Der Bär aß früh; Übermut tut selten gut. Größe, Füße, süß, Mädchen.",
        "L'été où l'ingénieur reçut la lettre, déjà très âgé, il pleura à l'hôtel.",
        "La mañana siguiente el señor no pidió más café.",
    ],
)
def test_latin_encodings_are_known_by_their_letters(encoding: str, text: str) -> None:
    assert decode(text.encode(encoding)) == Decoded(text, encoding)


def test_lines_drawn_in_code_page_437_are_no_letters() -> None:
    text = "┌" + "─" * 40 + "┐\n│ The café is closed. │\n└" + "─" * 40 + "┘\n" + ENGLISH
    assert decode(text.encode("cp437")) == Decoded(text, "cp437")


def test_no_normalisation() -> None:
    assert decode("e\u0301".encode()) == Decoded("e\u0301", "utf-8")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "empty_file"),
        (b"\xef\xbb\xbf \r\n", "empty_file"),
        (b"\n<!DOCTYPE html>\n<html><body>Are you a robot?", "html_page"),
        (b"<HTML><head>", "html_page"),
        (b"\xef\xbb\xbf<html>", "html_page"),
        (b"PK\x03\x04\x00\x00\x00", "binary_file"),
        (b"\x01\x02\x03\x04\x05\x06" * 50, "binary_file"),
        ("夜裡很安靜".encode("big5"), "undecodable"),
        ("Η νύχτα ήταν ήσυχη".encode("iso8859-7"), "undecodable"),
        (b"\xff\xfeabc", "undecodable"),
    ],
)
def test_what_is_no_text_is_rejected(raw: bytes, reason: str) -> None:
    result = decode(raw)
    assert isinstance(result, Reject), result
    assert result.reason == reason


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufeff"), min_size=1))
def test_utf8_round_trip(text: str) -> None:
    decoded = decode(f"x{text}".encode())
    assert decoded == Decoded(f"x{text}", "utf-8")


@given(st.binary(max_size=300))
def test_any_bytes_give_clean_text_or_a_reject(raw: bytes) -> None:
    decoded = decode(raw)
    if isinstance(decoded, Decoded):
        assert "\r" not in decoded.text
        assert "\ufeff" not in decoded.text
        assert "\x00" not in decoded.text or raw.startswith((b"\xff\xfe", b"\xfe\xff"))
