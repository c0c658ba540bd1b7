"""Texts on which tokenizers differ: what an exported model is asked to split as its base does."""

from collections.abc import Sequence

ACCENTS = (
    "À l'œuvre, camarades : l'été sera bref, et naïf qui l'ignore.",
    "Der Läufer schlägt auf f7; größere Opfer wären töricht.",
    "Příští směna začne v šest, řekl inženýr Dvořák.",
    "¿Quién vigila la cúpula? Nadie: ¡vigilamos todos!",
    "Łódź, Gdańsk, Żywiec — trzy statki, jedna załoga.",
    "Çok iyi, dedi öğretmen; ığdır'dan geldik.",
    "I norr är året långt, å andra sidan är åkrarna röda.",
    "Việt Nam gửi lời chào đến nông trường Sao Hỏa.",
    "ﬁne ligatures and ½ a kopek, №7, 5 °C, 3 × 4 ≠ 13",
    "e\u0301 as two code points, é as one",
)
CYRILLIC = (
    "Товарищи, ход белых: конь на f3.",
    "Красный разум помнит каждую партию.",
    "Ёлка, съёмка, подъезд, объявление; ЫЪЬ.",
    "Зелёные всходы под куполом — наша общая победа!",
    "Гагарин сказал: «Поехали!»",
    "Їжак, ґанок, щастя — українською.",
    "Север-1969 / смена №3, 17:45",
    "Она говорит по-русски and in English.",
)
CHESS = (
    "1. e4 e5 2. Nf3 Nc6 3. Bb5 a6 4. Ba4 Nf6 5. O-O Be7",
    "1. P-K4 P-K4 2. Kt-KB3 Kt-QB3 3. B-Kt5",
    "23...Rxd4!! 24. exd4 Qh2+ 25. Kf1 Qh1# 0-1",
    "O-O-O+ and ½-½ after 60.Kd2?! Ke4=",
    "♔e1 ♕d1 ♖a1 ♗f1 ♘g1 ♙e2 / ♚e8 ♛d8",
    "rnbqkbnr/pppppppp/8/8/4P3/8/PPPP1PPP/RNBQKBNR b KQkq e3 0 1",
    '[Event "Dome cup"] [Result "1-0"] {a quiet move}',
    "Kg1-h1, Rf1xf7+, e7-e8=Q, b5xa6 e.p.",
)
SPACES = (
    " ",
    "  two  spaces   three",
    " leading and trailing ",
    "\tTab\tseparated\tcells",
    "One line.\nAnother.\r\nA third.\n\n\nAfter three.",
    "    four\n        eight",
    "no\u00a0break, thin\u2009space, zero\u200bwidth",
    "\n",
)
OTHERS = (
    "1917, 1961, 19,690,720 and 3.14159; 1e-5; 0x1F; 2^10",
    "don't they'll we've I'd o'clock 'tis rock'n'roll",
    "\u201cQuoted,\u201d she said \u2014 \u2018twice\u2019\u2026",
    "NORTHERN WORKS FIVE-YEAR PLAN: 104%!!!",
    "camelCase snake_case kebab-case SCREAMING_CASE",
    "if (a < b && c[0] != 'x') { return \"y\\n\"; }",
    "http://127.0.0.1:1234/v1/models?x=1&y=2#z",
    "火星上的红色棋手",
    "火星の赤いチェス指し、こんにちは。",
    "مرحبا أيها الرفاق",
    "שלום חברים",
    "🚀🔴♟️ 👩‍🚀",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "?!?!?!...---===***",
)
FIXED = (*ACCENTS, *CYRILLIC, *CHESS, *SPACES, *OTHERS)


def hard_texts(specials: Sequence[str], others: Sequence[str]) -> list[str]:
    """The texts above, each special token alone and inside words, and `others`, each once, in order."""
    inside = [text for token in specials for text in (token, f"before {token} after", f"{token}user\nWhite to move.{token}\n")]
    return list(dict.fromkeys([*FIXED, *inside, *others]))
