"""The language of a body."""

import pytest

from deepred_ray.text.language import UNDETERMINED, language

SAMPLES = {
    "en": "The engineer walked through the long gallery and counted the lamps that were still alight.",
    "de": "Der Ingenieur ging durch den langen Gang und zählte die Lampen, die noch brannten.",
    "fr": "L'ingénieur traversa la longue galerie et compta les lampes qui brûlaient encore dans la nuit.",
    "fi": "Insinööri käveli pitkän käytävän läpi ja laski lamput, jotka vielä paloivat yössä.",
    "ru": "Инженер прошёл по длинной галерее и сосчитал лампы, которые ещё горели в темноте.",
    "zh": "工程師走過長長的走廊，數著還亮著的燈。夜裡很安靜，沒有人說話。",
}


@pytest.mark.parametrize("code", SAMPLES)
def test_short_and_long(code: str) -> None:
    for text in (SAMPLES[code], "\n\n".join([SAMPLES[code]] * 200)):
        found, probability = language(text)
        assert found == code
        assert 0.5 < probability <= 1.0


def test_english_head_round_a_foreign_body() -> None:
    assert language(SAMPLES["en"] * 5 + "\n\n" + SAMPLES["de"] * 300)[0] == "de"


def test_chess_notation_does_not_vote() -> None:
    moves = "\n".join(f"{n}. P-K4 P-K4 Kt-KB3 Kt-QB3 B-Kt5 P-QR3 Nxe4+ O-O" for n in range(15))
    comment = "White now threatens to win a pawn, and Black has to defend it at once or be left without an attack."
    found, probability = language("\n\n".join([moves, comment] * 30))
    assert found == "en"
    assert probability > 0.8
    assert language(moves * 20) == (UNDETERMINED, 0.0)


@pytest.mark.parametrize("code", ["en", "de", "fr"])
def test_capitals(code: str) -> None:
    assert language(SAMPLES[code].upper() * 30)[0] == code


def test_verse() -> None:
    assert language("Below the ice the pumps go round,\n  And none may sleep above;\n" * 30)[0] == "en"


def test_the_greater_part_decides() -> None:
    assert language(SAMPLES["en"] * 20 + SAMPLES["de"] * 60)[0] == "de"
    assert language(SAMPLES["en"] * 60 + SAMPLES["de"] * 20)[0] == "en"


def test_a_line_of_words_in_a_table_of_digits_is_no_language() -> None:
    assert language("These are the digits that the engineer counted. " * 6 + "31415 92653 58979\n" * 1_000) == (UNDETERMINED, 0.0)


@pytest.mark.parametrize("text", ["", "   \n", "12 34 56 " * 500, "1. 2. 3."])
def test_no_letters_no_language(text: str) -> None:
    assert language(text) == (UNDETERMINED, 0.0)
