"""Scripts: Fountain's elements, plain typescripts and plays, and excerpts that lose no speech."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.text.scripts import elements, excerpts

FOUNTAIN = """Title: The Ninth Dome
Author: A. Wright
Draft date: 1961

# Act One

= The lamps go out.

INT. CONTROL ROOM - NIGHT

Rows of lamps. One of them *flickers*. [[check the number]]

VETROVA
(softly)
Which lamp is it?

DEEP RED (V.O.)
The _ninth_, comrade.
We have sent for the crew.

@McKenna
Then we are too late.

/* A scene
that was cut. */

CUT TO:

.THE OUTER WALL

> A WHISTLE <

ORLOV ^
~The wall will hold,
~the wall will hold.

===
"""


def test_fountain() -> None:
    found = [(each.kind, each.speaker, each.text) for each in elements(FOUNTAIN)]
    assert found == [
        ("scene", "", "INT. CONTROL ROOM - NIGHT"),
        ("action", "", "Rows of lamps. One of them flickers."),
        ("dialogue", "VETROVA", "Which lamp is it?"),
        ("dialogue", "DEEP RED", "The ninth, comrade. We have sent for the crew."),
        ("dialogue", "McKenna", "Then we are too late."),
        ("scene", "", "THE OUTER WALL"),
        ("action", "", "A WHISTLE"),
        ("dialogue", "ORLOV", "The wall will hold, the wall will hold."),
    ]


def test_a_typescript() -> None:
    script = "          12.\n\n     EXT. CANAL\n\n  The ice groans.\n\n          ORLOV (CONT'D)\n      (to the others)\n"
    script += "    Stand back.\n    All of you!\n\n   (MORE)\n"
    found = [(each.kind, each.speaker, each.text) for each in elements(script)]
    assert found == [
        ("scene", "", "EXT. CANAL"),
        ("action", "", "The ice groans."),
        ("dialogue", "ORLOV", "Stand back. All of you!"),
    ]


@pytest.mark.parametrize(
    ("cue", "speaker"),
    [
        ("ORLOV (V.O.)", "ORLOV"),
        ("ORLOV (on the radio)", "ORLOV"),
        ("ORLOV (softly) (CONT'D)", "ORLOV"),
        ("OLD ORLOV (off) ^", "OLD ORLOV"),
        ("R2", "R2"),
        ("ДР. ORLOV", "ДР. ORLOV"),
    ],
)
def test_a_cue_and_its_extensions(cue: str, speaker: str) -> None:
    assert [(each.speaker, each.text) for each in elements(f"{cue}\nStand back.\n")] == [(speaker, "Stand back.")]


@pytest.mark.parametrize("line", ["Orlov (V.O.)", "(softly)", "12 (see below)", "a (B)"])
def test_a_line_that_is_no_cue(line: str) -> None:
    assert [each.kind for each in elements(f"{line}\nStand back.\n")] == ["action"]


def test_a_play() -> None:
    found = [(each.speaker, each.text) for each in elements("ORLOV: Who is there?\nVETROVA: It is we,\nthe night shift.\n")]
    assert found == [("ORLOV", "Who is there?"), ("VETROVA", "It is we, the night shift.")]


def test_offsets_are_those_of_the_file() -> None:
    for each in elements(FOUNTAIN):
        assert each.text.split()[-1].strip(".") in FOUNTAIN[each.start : each.end].replace("*", "")


def test_an_excerpt_begins_with_a_scene() -> None:
    scene = "INT. HALL {n}\n\nORLOV\n" + "We hold the wall. " * 20 + "\n\n"
    made = excerpts("".join(scene.replace("{n}", str(n)) for n in range(3)))
    assert [each.title for each in made] == ["INT. HALL 0", "INT. HALL 1", "INT. HALL 2"]
    assert all(each.text.startswith("ORLOV: We hold") for each in made)


def test_short_scenes_go_together() -> None:
    made = excerpts("INT. A\n\nORLOV\nWho?\n\nINT. B\n\nORLOV\n" + "We hold the wall. " * 30)
    assert [each.title for each in made] == ["INT. A"]


def test_what_is_no_script() -> None:
    for text in ("", "It was a quiet night.\n\nNobody spoke.\n", "CHAPTER I\n\nThe night was quiet.\n"):
        with pytest.raises(ValueError, match="nobody speaks"):
            excerpts(text)


SPEECH = st.tuples(st.sampled_from(["ORLOV", "VETROVA"]), st.integers(1, 60))


@given(
    st.lists(st.one_of(SPEECH, st.just("scene")), min_size=1, max_size=30).filter(
        lambda script: any(each != "scene" for each in script)
    )
)
def test_no_speech_is_lost(script: list[tuple[str, int] | str]) -> None:
    said, text = [], ""
    for number, each in enumerate(script):
        if isinstance(each, str):
            text += f"INT. ROOM {number}\n\n"
        else:
            said.append(f"{each[0]}: w{number} {'word ' * each[1]}end.")
            text += f"{each[0]}\nw{number} {'word ' * each[1]}end.\n\n"
    made = excerpts(text, size=400, minimum=100)
    assert "\n".join(each.text for each in made).split("\n") == said
    assert all(len(each.text) >= 100 for each in made) or len(made) == 1
    assert all(first.end <= second.start for first, second in itertools.pairwise(made))
