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
        ("Зима была очень долгой".encode("koi8-r"), "undecodable"),
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
