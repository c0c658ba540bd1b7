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


@pytest.mark.parametrize("text", ["", "   \n", "12 34 56 " * 500, "1. 2. 3."])
def test_no_letters_no_language(text: str) -> None:
    assert language(text) == (UNDETERMINED, 0.0)
