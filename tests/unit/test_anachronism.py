"""The temporal gate: the shipped lexicon, its look-up, its patterns, explicit years, and speed."""

import re
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepred_ray.text.anachronism import COLUMNS, SENSE_REACH, Gate, Hit, parse_terms
from deepred_ray.text.reject import Reject

LEXICON = files("deepred_ray").joinpath("data/common/anachronisms.tsv").read_text(encoding="utf-8")
GATE = Gate(parse_terms(LEXICON), cutoff_year=1969)

MODERN = """\
She pulled out her smartphone and took three selfies before the tram arrived.
My cousin met his wife on a dating app and they married within the year.
The company moved all of its files to the cloud and closed the server room.
He spent the whole weekend scrolling through Instagram instead of sleeping.
Please send the signed form by email, or upload it to our website.
The new chip from Nvidia can train a network with a billion parameters.
After Chernobyl the reactor's neighbours were taken away in buses.
When Gorbachev came to power the editors could suddenly print anything.
We watched the whole series on Netflix in one night.
The astronauts of Apollo 11 brought back rocks and photographs.
I forgot my password and the browser would not let me log in.
Our startup raised its first money from a venture fund in Silicon Valley.
Her grandmother still pays in euros with coins and exact change at the bakery, though a banking app would do.
Nobody under thirty remembers the sound of a dial-up modem.
A drone filmed the flood from above and the footage went viral.
The Space Shuttle could carry a laboratory in its hold.
Ask the chatbot to write the letter for you; it will invent the facts.
Windows crashed twice while I was typing the report.
You can pair the headphones with any Bluetooth speaker.
They tested the passengers for COVID-19 at the gate.
During the lockdown the children had school over Zoom.
The collapse of the Soviet Union left the fleet without a harbour.
My boss wants the slides as a PDF and the figures in an Excel spreadsheet.
The web site was down because hackers had stolen the database.
In 1984 Apple showed a small computer with a mouse and a screen full of icons.
Kasparov lost the last game of the match against the machine.
The rover Curiosity drilled into a stone in Gale Crater.
He is a large language model and believes that he is a poet.
She texted him twice but the cell signal was poor in the valley.
Recent studies of climate policy count every carbon footprint in the supply line.
The virus spread by an email attachment and erased every laptop in the bank.
I ordered a Kindle on Amazon and it came the next morning.
His tweet had forty thousand likes and one death threat.
The tablet needs charging before the children can use its apps.
We live streamed the concert on YouTube to a million subscribers.
Do you accept cookies from this web page?
The surgeon looked at the MRI before she made her decision.
DNA testing proved that the prisoner had been innocent.
He listened to a podcast about Roman roads while he jogged.
They sold the flat and paid for it in bitcoin.
My friends on Facebook all claim to have read the book.
Since 1997 the station has been run by three directors.
The Taliban entered the capital without a shot.
President Reagan called it an evil empire.
Perestroika began with a speech and ended with empty shelves.
In the 1990s everybody wore a pager on the belt.
The word processor saved a copy of the letter on a floppy disk.
He carried a Walkman and a bag of cassettes to the beach.
A teenage hacker had changed his own school marks by computer.
The digital camera has put the old photographer out of work.
Turn left at the next corner, said the GPS, and drove us into a field.
The doctors did not yet know that the new disease was caused by HIV.
The Hubble telescope showed ten thousand galaxies in one dark patch of sky.
They googled the restaurant and read the reviews online.
After 9/11 the airports were never the same.
My daughter would rather play Minecraft on her Xbox than go out.
The influencer was paid to praise a smoothie.
I tried to unsubscribe from the newsletter but the link was broken.
Voyager 2 has left the planets behind and still answers.
Brexit divided families that had never talked of politics.
""".splitlines()

PERIOD = """\
The windows of the dacha stood open and the smell of hay came in.
He washed the windows of the computing hall every Saturday.
From the window she saw the icon lamp burning in the corner.
A cloud of dust rose behind the column and hung over the road.
Not a cloud was to be seen, and the azure deepened towards noon.
The photographs show a great yellow cloud moving over the plains of Mars.
He gave his word, and a comrade's word was enough.
The word was passed along the line that the train had come.
A network of canals, said the astronomer, covered the whole disc.
The network of railways ties the provinces to the capital.
Radio stations of the northern network relayed the speech.
The digital computer adds in the time that a man needs to blink.
Digital machines count; analogue machines measure.
At the signal the divers went over the side.
The signal from the probe was weaker than the noise of the Sun.
My friends, the harvest is in.
He had many friends and few followers.
An apple lay on the table beside the lamp.
She sold apples at the gate of the factory.
The mouse ran along the shelf and upset the ink.
A mechanical mouse learned its way through the maze of the laboratory.
The spider had spun its web across the muzzle of the gun.
We are caught in a web of treaties.
A chip of stone had cut his cheek.
The carpenter brushed every chip from the bench.
The virus passes through the finest filter of porcelain.
The doctor suspected a virus and opened all the windows.
On the tablet were cut the names of the fallen.
Take one tablet with water before sleep.
The prisoner paced his cell and counted the stones.
Every living cell divides according to the same plan.
The stream was swollen by the rain and carried off the bridge.
A stream of workers came out through the gates.
The server poured the tea and withdrew.
The monitor of the class rang the bell.
He saved the file of letters in an iron box.
The crash of the falling pines was heard for miles.
Follow the river to its source, then cross the ridge.
He posted the letter in the village.
The post came twice a week in a leather bag.
Her profile against the snow was that of a queen.
The desktop was covered with green baize.
A drone left the hive and did not return.
The remote valleys know nothing of the war.
Tesla showed lamps that burned without wires.
A python lay coiled in the warmth of the boiler.
The coffee came from Java in sacks.
The oracle had promised him a long reign.
The Amazon was a mile wide below the rapids.
A Viking ship was dug out of the mound.
The channel was marked with buoys and lit at night.
The troll of the legend lived under a bridge.
He studied the scroll by the light of one candle.
Professor Challenger struck the table with his fist.
By the year 2000 we shall drink the water of other planets.
The shaft went down 2000 feet, and in 1984 feet of it there was gas.
The rule is explained on page 1984 of the register.
They counted 1999 votes for the motion.
The satellite circled the Earth in ninety minutes and the whole world listened.
The rocket club launched its first model from the roof of the school.
""".splitlines()


def names(text: str, gate: Gate = GATE) -> set[str]:
    return {hit.term for hit in gate.hits(text)}


def rows(*lines: str) -> str:
    return "\n".join(["\t".join(COLUMNS), *lines])


def small(*lines: str, cutoff: int = 1969) -> Gate:
    return Gate(parse_terms(rows(*lines)), cutoff)


def test_lexicon_ships_dated_terms_of_every_kind() -> None:
    terms = parse_terms(LEXICON)
    assert len(terms) >= 5000
    assert {term.kind for term in terms} == {"coinage", "name", "sense", "pattern"}
    assert all(1969 <= term.year <= 2030 for term in terms)


def test_planted_sentences_are_sixty_and_sixty() -> None:
    assert len(set(MODERN)) == len(set(PERIOD)) == 60


@pytest.mark.parametrize("sentence", MODERN)
def test_modern_sentence_is_rejected(sentence: str) -> None:
    reject = GATE.check(sentence)
    assert isinstance(reject, Reject)
    assert reject.reason == "anachronism"


@pytest.mark.parametrize("sentence", PERIOD)
def test_period_sentence_passes(sentence: str) -> None:
    assert GATE.check(sentence) is None


def test_hit_points_at_its_text() -> None:
    text = "He said: the Sky\u00adlab? No, two smart-\nphones, and Skylab's crew."
    found = GATE.hits(text)
    assert [(hit.term, text[hit.start : hit.end]) for hit in found] == [
        ("smart phone", "smart-\nphones"),
        ("Skylab", "Skylab"),
    ]
    assert [hit.reason for hit in found] == ["coinage", "name"]


def test_reject_names_each_term_once() -> None:
    gate = small("telex box\t1975\tcoinage\tno\tinvented\t\t")
    reject = gate.check("A telex box beside a telex box.")
    assert reject == Reject("anachronism", "telex box (coinage, 1975)")


def test_terms_before_the_cutoff_are_allowed() -> None:
    pattern = r"\d-?bit\b" + "\t1975\tpattern\tno\tinvented\t\t"
    assert names("8-bit", small(pattern, cutoff=1975)) == {"8-bit"}
    assert names("8-bit", small(pattern, cutoff=1976)) == set()
    line = "telex box\t1975\tcoinage\tno\tinvented\t\t"
    assert names("A telex box.", small(line, cutoff=1975)) == {"telex box"}
    assert names("A telex box.", small(line, cutoff=1976)) == set()


def test_words_match_whole_with_plurals_and_possessives() -> None:
    gate = small("robocab\t1975\tcoinage\tno\tinvented\t\t", "skybox\t1975\tcoinage\tno\tinvented\t\t")
    assert names("two ROBOCABS", gate) == {"robocab"}
    assert names("the robocab\u2019s door and _robocab_", gate) == {"robocab"}
    assert names("skyboxes", gate) == {"skybox"}
    assert names("robocabin, unrobocab", gate) == set()


def test_a_sentence_end_parts_a_term() -> None:
    gate = small("video doorbell\t1999\tcoinage\tno\tinvented\t\t", "J. K. Rowan\t1999\tname\tyes\tinvented\t\t")
    assert names("They had no video. Doorbell and lamp were dead.", gate) == set()
    assert names("a video\n  doorbell by J.K. Rowan", gate) == {"video doorbell", "J. K. Rowan"}


def test_case_matters_where_the_row_says_so() -> None:
    gate = small("Pinwheel\t1999\tname\tyes\tinvented\t\t")
    assert names("a pinwheel of paper", gate) == set()
    assert names("I asked Pinwheel", gate) == {"Pinwheel"}


def test_sense_needs_a_context_word_within_reach() -> None:
    gate = small("kettle\t1999\tsense\tno\tinvented\tsoftware|app\t")
    near, far = " x" * (SENSE_REACH - 1), " x" * SENSE_REACH
    assert names(f"kettle{near} software", gate) == names(f"apps{near} kettle", gate) == {"kettle"}
    assert names(f"kettle{far} software", gate) == names(f"software{far} kettle", gate) == set()


def test_senses_their_contexts_and_long_coinages_are_conjugated() -> None:
    gate = small("tap\t1999\tsense\tno\tinvented\tupdate|copy\t", "teleglow\t1999\tcoinage\tno\tinvented\t\t")
    for text in ("taps copies", "tapped, copied", "tapping and copying", "updating taps", "updated; tapping"):
        assert names(text, gate) == {"tap"}
    assert names("taped copies, tappers, updaters", gate) == set()
    assert names("teleglowed, teleglowing teleglows", gate) == {"teleglow"}


def test_names_phrases_and_short_coinages_are_not_conjugated() -> None:
    gate = small(
        "Pinwheel\t1999\tname\tyes\tinvented\t\t",
        "app store\t1999\tcoinage\tno\tinvented\t\t",
        "lol\t1999\tcoinage\tno\tinvented\t\t",
    )
    assert names("Pinwheeled; app storing; lolled, loling", gate) == set()
    assert names("Pinwheels; app stores; LOL", gate) == {"Pinwheel", "app store", "lol"}


def test_a_pattern_hits_with_the_text_that_it_matched() -> None:
    gate = small(r"\d-?bit\b" + "\t1975\tpattern\tno\tinvented\t\t", "Zoop\\d\t1999\tpattern\tyes\tinvented\t\t")
    assert gate.hits("an 8-Bit chip") == [Hit("8-Bit", 1975, 3, 8, "pattern")]
    assert names("Zoop9, zoop9", gate) == {"Zoop9"}
    assert gate.check("8bit") == Reject("anachronism", "8bit (pattern, 1975)")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("They posted it under #Throwback.", {"#Throwback"}),
        ("White: K at #Kt4, #P; note #12", set()),
        ("write to anna_k@mail.ru", {"@mail.ru"}),
        ("ask @spacefan", {"@spacefan"}),
        ("barley @ 6d. a bushel", set()),
        ("look at example.com today", {".com"}),
        ("the end.Come in", set()),
        ("https://x", {"://"}),
        ("it costs €5, or 5 €", {"€5", "€"}),
        ("so many 😂", {"😂"}),
        ("a ☿ and a 🜍", set()),
        ("16GB, 3.2 GHz, 1080p, a 4K screen, the 5G network", {"6GB", "2 GHz", "80p", "4K screen", "5G network"}),
        ("a memory of 4K words, 5G of acceleration, 4 Kt", set()),
        ("the iPadPro and SoundCloud", {"iPadPro", "SoundCloud"}),
        ("McDonald, MacArthur, DeForest, LaSalle, O'Brien, theBook, LaGuardia", set()),
        ("cyberwar, Cyber-monday", {"cyberwar", "Cyber-monday"}),
        ("cybernetics, a cyberneticist, cybernation", set()),
        ("open 24/7", {"24/7"}),
        ("the 24/7/1916, price 24/7d.", {"24/7"}),
        ("Windows 95, GPT-4", {"Windows 9", "GPT-4"}),
    ],
)
def test_shipped_patterns(text: str, found: set[str]) -> None:
    assert {hit.term for hit in GATE.hits(text) if hit.reason == "pattern"} == found


def test_offsets_hold_beside_letters_that_grow_in_lower_case() -> None:
    text = "\u0130\u0130 Skylab \u0130"
    assert GATE.hits(text) == [Hit("Skylab", 1973, 3, 9, "name")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It began in 1984, they say.", {"1984"}),
        ("since 1997", {"1997"}),
        ("On July 20, 1969 it rained.", {"1969"}),
        ("on 3 May 2011", {"2011"}),
        ("the late 1980s", {"1980"}),
        ("the year 2024", {"2024"}),
        ("Copyright 1999", {"1999"}),
        ("in 1968", set()),
        ("the year 2000", set()),
        ("in 2443", set()),
        ("in 2000 feet of water", set()),
        ("in 2,000 years", set()),
        ("No. 1984, page 1999", set()),
        ("one in 2000", set()),
        ("In 1984 we shall land on Titan.", set()),
        ("by the end of 1985", set()),
        ("We shall see. It ended in 1984.", {"1984"}),
        ("the 2016 election", {"2016"}),
        ("the 2016 elections", {"2016"}),
        ("a 2019 study", {"2019"}),
        ("the class of 1987", {"1987"}),
        ("Tokyo 2020 was put off", {"2020"}),
        ("(Smith, 1998)", {"1998"}),
        ("back in 2007", {"2007"}),
        ("1989 changed it all", {"1989"}),
        ("1990s music", {"1990"}),
        ("the 1980's", {"1980"}),
        ("from mid-1997 on", {"1997"}),
        ("the 2000s", {"2000"}),
        ("_1999_", {"1999"}),
        ("Born 1985, died 2020.", {"1985", "2020"}),
        ("1939-1986", set()),
        ("1,975 and 3.1975 and 19751", set()),
        ("$1975, £1990, #2001", set()),
        ("some 1975 sheep", set()),
        ("1975 votes", set()),
        ("a 1975-foot shaft of 1999 ft.", set()),
        ("1999th", set()),
        ("on page 1984", set()),
        ("Orwell's 1984", set()),
        ("the film 2001: A Space Odyssey", set()),
        ("in 2002 A.D.", set()),
        ("in A. D. 2002", set()),
        ("September, A.D. 2002", set()),
        ("1975 B.C.", set()),
        ("height 1999°", set()),
        ("The games of 2028 will be held there.", set()),
        ("the number 2031", set()),
    ],
)
def test_explicit_years(text: str, found: set[str]) -> None:
    assert {hit.term for hit in GATE.hits(text) if hit.reason == "year"} == found


def test_years_can_be_left_to_others() -> None:
    assert Gate((), 1969, years=False).hits("in 1984") == []
    assert names("in 1950", Gate((), 1940)) == {"1950"}


def test_a_pattern_with_context_is_tried_only_on_texts_with_one_of_its_words() -> None:
    gate = Gate(parse_terms(rows("\\bin \\w+ hundred yards,? turn\t1998\tpattern\tno\ts\tyards|metres\t")), 1969)
    assert [hit.term for hit in gate.hits("In two hundred yards, turn left.")] == ["In two hundred yards, turn"]
    elsewhere = Gate(parse_terms(rows("\\bin \\w+ hundred yards,? turn\t1998\tpattern\tno\ts\tmetres\t")), 1969)
    assert elsewhere.hits("In two hundred yards, turn left.") == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a\t1999\tcoinage\tno\ts\t", "6 cells"),
        ("a\t99\tcoinage\tno\ts\t\t", "not a year"),
        ("a\t1999\tfad\tno\ts\t\t", "unknown kind"),
        ("a\t1999\tcoinage\tmaybe\ts\t\t", "yes or no"),
        ("a\t1999\tcoinage\tno\t\t\t", "no source"),
        ("?\t1999\tcoinage\tno\ts\t\t", "no word"),
        ("a\t1999\tsense\tno\ts\t\t", "context words"),
        ("a\t1999\tname\tno\ts\tb\t", "context words"),
        ("a\t1999\tsense\tno\ts\tb c\t", "single words"),
        ("", "1 cells"),
        ("(a\t1999\tpattern\tno\ts\t\t", "no regular expression"),
        ("a*\t1999\tpattern\tno\ts\t\t", "would hit every text"),
        ("a\t1999\tpattern\tno\ts\tb c\t", "single words"),
    ],
)
def test_a_bad_row_is_named_by_its_line(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"line 3: .*{message}"):
        parse_terms(rows("b\t1999\tcoinage\tno\ts\t\t", line, "c\t1999\tcoinage\tno\ts\t\t"))


def test_a_repeated_term_and_a_wrong_header_are_refused() -> None:
    row = "b\t1999\tcoinage\tno\ts\t\t"
    with pytest.raises(ValueError, match="line 3: 'B' is in the lexicon twice"):
        parse_terms(rows(row, row.replace("b", "B", 1)))
    for text in ("", "term\tyear"):
        with pytest.raises(ValueError, match="line 1: the header"):
            parse_terms(text)


PLAIN = sorted({word for line in PERIOD for word in re.findall(r"[a-z]{2,5}", line)})


@given(st.text())
def test_offsets_give_the_text_of_the_hit(text: str) -> None:
    for hit in GATE.hits(f"{text} Skylab, email {text} in 1984"):
        assert 0 <= hit.start < hit.end
        assert hit.year >= 1969
    found = {(hit.term, hit.reason) for hit in GATE.hits(f"{text} \nSkylab. In 1984 {text}")}
    assert ("Skylab", "name") in found


@given(st.lists(st.sampled_from(["smart", "phone", "smartphones", "tram", "Email", "\u0130", "-", "\n", "#Vote", "1997", ","])))
def test_each_hit_is_its_term_as_the_text_spells_it(parts: list[str]) -> None:
    text = " ".join(parts)
    for hit in GATE.hits(text):
        spelled = re.sub(r"[\s-]+", " ", text[hit.start : hit.end]).lower()
        assert spelled in (hit.term.lower(), hit.term.lower() + "s")


@given(st.lists(st.sampled_from(PLAIN), max_size=40))
def test_short_plain_words_in_any_order_pass(words: list[str]) -> None:
    assert GATE.check(" ".join(words)) is None
