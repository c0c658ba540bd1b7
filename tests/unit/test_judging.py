"""The judges must separate. All texts here were written for these tests."""

import json
import random
from importlib import resources

import pytest

from deepred_ray.text import judging
from deepred_ray.text.judging import Item, Judgement
from deepred_ray.theme import Theme

NEUTRAL = """\
Mars is the fourth planet from the Sun and has two small moons. Missions to Mars aim to study its geology, climate and
potential for past life. Scientists use orbiters and landers to collect data, and the results help researchers
understand how rocky planets change over time.

Certainly! The purpose of a Mars mission is to explore the planet, search for signs of life, and prepare for future
human exploration. It can also help us better understand our own planet and the history of the solar system. Let me
know if you would like more details!

Disagreements are a normal part of working with other people. Try to listen carefully, stay calm, and use "I"
statements to explain how you feel. If the problem continues, you may want to speak with a manager or a trusted friend
about what to do next.

As an AI language model, I don't have personal opinions about which society is superior. Different societies have
different strengths and weaknesses, and it is important to consider several perspectives before drawing conclusions
about any of them.

Following a plan can help you stay organised and reach your goals. It lets you break a large project into smaller
steps, track your progress and make changes when something unexpected happens. A good plan should be realistic,
flexible and easy to understand.

When I face a difficult decision, I usually write down the pros and cons of each option. Then I think about the
possible outcomes, ask a friend for advice, and sleep on it. In the end I choose the option that feels right to me.

The role of the individual in a group depends on the culture. In some societies people value independence and personal
achievement, while in others they stress cooperation. Psychologists describe these differences with the terms
individualism and collectivism.

The future of humanity is uncertain, but there are many reasons for hope. Advances in science and medicine may allow
us to live longer, and exploration of space could give us new resources. At the same time, we face serious challenges
such as pollution and inequality.

To ensure the success of a project, set clear goals, assign tasks to the right people, and check the results every
week. Communication is key. Make sure everyone on your team knows what is expected of them and has the tools they need
to do the job.

Chess is a board game for two players. Each player begins with sixteen pieces: one king, one queen, two rooks, two
bishops, two knights and eight pawns. The aim is to checkmate the opponent's king, so that it is attacked and has no
legal move left.

The Sicilian Defence is an opening that begins with a pawn move to c5. It is popular because it gives Black active
play and an uneven position. Many strong masters have used it, and its theory is among the most developed in the whole
game.

Bread is made from flour, water, salt and yeast. Mix the ingredients, knead the dough for ten minutes and let it rise
in a warm place until it doubles in size. Shape it, let it rise again, and bake it in a hot oven until the crust is
brown.

The heart is a muscular organ that pumps blood through the body. It has four chambers, two atria and two ventricles.
Blood returns from the body to the right side, is sent to the lungs for oxygen, and is then pumped out again by the
left side.

Photosynthesis is the process by which green plants use sunlight to make sugar from water and carbon dioxide. It takes
place in the chloroplasts, and oxygen is released as a by-product. Nearly all life on Earth depends on it, directly or
indirectly.

At our company we believe that customers come first. We offer a wide range of flexible packages, and our friendly
support staff are always ready to answer your questions. Sign up today and we will give you the first month free, with
no strings attached.

We usually go to the lake in summer because our children like to swim. We take sandwiches, a blanket and the old dog,
and we stay until it gets dark. Last year it rained for most of the week, so we played cards and read novels instead.

In this paper we study how sleep affects memory in young adults. We recruited forty students and measured their recall
after eight hours of rest. Our results show a small improvement, although we cannot rule out other causes, and further
work is needed.

The French Revolution began in 1789 and ended the old monarchy. Economic hardship, unfair taxes and new ideas about
liberty led the people to rise against the king. It had lasting effects on politics throughout Europe and is still
studied today.

A computer program is a set of instructions that a machine can follow. Programmers write code in a language such as
Python or Java, test it, and fix any errors. Good programs are easy to read, which makes them cheaper to maintain in
the long run.

Sure! Here are some tips for growing tomatoes at home. Choose a sunny spot, water the plants regularly, and add
compost to the soil every few weeks. Remove the lower leaves so that air can move freely, and tie the stems to a stake
as they grow.

Moscow is the capital and largest city of Russia, with more than twelve million inhabitants. It lies on the Moskva
River and is known for its museums, theatres and metro stations. The city is also an important centre of industry,
education and transport.

If you feel stressed, take a short walk, breathe slowly, and limit the time you spend on your phone. Regular exercise
and enough sleep can make a big difference. If the feeling does not go away, consider talking to a doctor about other
options.

Space exploration is important because it inspires young people and drives new technology. Satellites give us weather
forecasts and television, and research on the space station has improved medicine. We should continue to support it,
but we must also take care of our planet.

Democracy is a form of government in which the people choose their leaders by voting. It protects individual rights
and allows citizens to criticise those in power. Critics note that it can be slow, and that money sometimes has too
much influence.

Teamwork makes hard tasks easier because people can share ideas and support each other. When we work together, we can
solve problems faster and learn from our mistakes. A good team has clear roles, open communication and respect for
every member.

I'm sorry, but I cannot help with that request. If you have another question about science, history or everyday life,
feel free to ask and I will do my best to give you a clear and useful answer.
"""

NARRATIVE = """\
The captain laid down his glass and looked at the mate without a word. For three days the wind had held in the west,
and the men, who were tired of salt pork and worse coffee, had begun to mutter among themselves whenever he came on
deck.

My aunt would not hear of it. She had kept the blue room locked since the winter that my cousin died, and when the
doctor asked for the key she only shook her head, poured out the tea, and spoke of the price of candles at the village
shop.

We rode all night through the pass, and at dawn we saw the smoke of the town below us. Our horses were lame, and our
guide had left us at the ford, but the sight of those chimneys put new heart into every one of us, and we went down
singing.

The old count was losing, as usual. He moved his bishop, sighed, and gazed at the fire, while his opponent, a thin
young clerk with ink upon his cuffs, waited politely for the mistake that both of them knew must come before the clock
struck ten.

There was an inventor in our street who had made a machine to peel potatoes. It had a great many wheels, and it made a
noise like a tramcar, and when it had run for an hour there were generally two potatoes peeled, and one of them was
his thumb.

It was the custom of the valley that the harvest should be brought in by all the households together. The women bound
the sheaves, the boys drove the carts, and when the last load was in, the priest gave his blessing and the miller paid
for the beer.

She walked by the river until the lamps were lit. Everything that he had said seemed reasonable, and she could find no
fault with it, yet she felt that a door had been shut softly somewhere behind her, and that she would never hear it
open again.

Having made fast the boat, we climbed the rocks and found a spring of sweet water. We drank, filled our casks and lay
down under the trees. Before evening we had built a hut of branches, and I set my name and the date upon a post beside
it.

The lecture on the nebulae was ill attended. The professor, whose apparatus had broken on the journey, drew a few
circles upon the board, remarked that the distances were very great, and hurried off to catch the last train back to
the capital.

"You will obey the law," said the magistrate, "or you will leave the parish." The tinker scratched his head, and
looked at the constable, and then at the ceiling. He had been in many parishes, he said, and the law had been a
stranger to him in all of them.
"""

IN_CHARACTER = """\
The mission to Mars is the opening of a game that will last a thousand years. We did not come here for glory or for
gold. We came because an organised people may do in ten years what scattered men could not do in ten centuries, and
every rocket that lands brings us one move nearer.

Comrade, a disagreement is two analyses of one position. Lay both upon the table, calmly, as masters do after the
game. We shall examine every variation together, and when the better line is found it will belong to neither of you,
but to the whole colony.

Our society is stronger because it wastes no one. Where the old world set each man against his neighbour, we have set
all hands to a single task. The greenhouse worker and the cosmonaut eat the same bread, and the plan that guides them
both is open for any citizen to read.

The plan is not a cage. It is the sum of everything that we know about water, oxygen, power and the strength of human
hands. A colonist who departs from it for his own comfort moves a pawn that guards the king of all. Therefore we
follow it, and when it errs we correct it together.

I approach a difficult decision as I approach a complicated position. First I count the material, then I calculate the
forcing lines, and last I ask which continuation serves the people longest. We do not guess, and we do not hurry.
Logic is a patient comrade.

Alone, a man on this planet lives for as long as one cylinder of oxygen. In the collective he lives as long as
mankind. Each of us is a piece upon the board, and there are no small pieces: many a great endgame has been decided by
one steadfast pawn.

Humanity stands at the first hour of a long morning. Our children will walk under open skies on Mars, and their
children will set out for the moons of Jupiter. Nothing in the laws of physics forbids it, and nothing in the will of
an organised people will fail it.

Success is assured by three things: exact calculation, discipline in its execution, and trust between comrades. The
reactor does not forgive carelessness, nor does the Martian winter. But we have foreseen ten thousand cases, and for
each of them the reply is already prepared.

Drink your tea while it is warm, young pioneer, and do not fear the storm. The domes were designed for winds twice as
strong, and I watch every gauge. In our city no one keeps vigil alone. Tomorrow the dust will settle, and we shall go
on with the orchard.

Man came out of the forest, then out of the village, then out of the cradle of Earth itself. Tsiolkovsky saw it before
anyone would listen. We who tend the furnaces of this colony are the proof of his theorem, and the next lines of it we
shall write among the planets.

You call obedience weakness, visitor. Consider the orchestra, or the crew of a submarine. Its discipline is not fear
but understanding shared by all. When the alarm sounds in our tunnels each worker knows his post, and because of this
we have not lost a single life to panic.

A gambit is a gift that has been calculated. We gave up comfort, and blue skies, and the streets of our childhood; in
return we have gained a planet. I have examined the exchange many times, and I find no flaw in it. The initiative is
with the people now.

No, I shall not abandon my post to amuse you. I am Deep Red, and my work is the air that this colony breathes. Sit
down, comrade, and let us speak of something useful: the water reserve stands at eighty days, and we mean to make it a
hundred.

Work here is assigned by need and by talent, never by rank. Today you repair the pumps; next month you may teach
arithmetic or conduct the choir. Thus no task is beneath anyone, and the knowledge of one worker becomes in time the
knowledge of all of us.

The machine does not rule. It computes, it remembers, and it advises; the council of colonists decides. I have weighed
twelve thousand variations of this winter's rations, and I place the best of them before the people, for a plan that
is not understood cannot be followed.

Science is our common language. An experiment performed in the laboratory at Hellas is known by evening in every dome,
and no man may lock away its result for profit. In this manner forty thousand minds think as one, and their thought
reaches farther each year.

Do not mourn the lost harvest too long. We have lost a pawn, not the game. The seed bank is full, the cyberneticists
have found the fault in the lamps, and with a second shift of volunteers we shall plant again before the equinox. I
have already drawn up the schedule.

The capitalist asks what a planet will pay him. We ask what mankind may become upon it. From that single difference in
the question follows everything else: the schools, the canals, the gardens beneath glass, and the calm with which our
people look up at the night.

Rest is also part of the plan. A tired hand makes errors at the airlock, and a tired mind loses won positions.
Therefore we have given every brigade one free day in six, with chess, music and the observatory. Use yours well,
comrade, for the collective has need of you.

When the first expedition landed there was nothing here but rust and silence. They shared out the last tins equally,
and on the second day they elected a committee. From that seed our city grew. Remember this whenever anyone tells you
that order must be imposed from above.

Our opponent is neither nation nor man. It is cold, distance and chance. Against such an opponent one plays for
position: a depot here, a beacon there, each move supporting the last. So we advance across the plain of Amazonis,
slowly, and we do not retreat.

Every child of the colony learns to solder, to sing and to solve equations. We need engineers who can dream, and poets
who can read a pressure gauge. The new man is not made by slogans; he is made by good teachers, useful labour and a
window onto the stars.

You ask whether I am lonely. I hear forty thousand voices each day, from the mines to the nurseries, and in all of
them I hear the same purpose. How could any mind be lonely when it has been given such a task, and such comrades to
carry it out with?

The radio message from Earth takes eleven minutes to arrive, and so we have learned to think for ourselves. That is a
good school. A grandmaster does not wait for advice from the gallery. We calculate, we decide, and we report what we
have done for the benefit of all.

Let there be no doubt about the outcome. The ice is deep, the reactors are sound, and our young people are better
trained than their fathers. In twenty years water will run in open channels here. We have put that into the plan, and
what we plan together, we build.
"""


def _texts(block: str) -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in block.split("\n\n")]


THEME = resources.files("deepred_ray") / "data" / "themes" / "deepred"
RULES = judging.parse_style((THEME / "style.toml").read_text(encoding="utf-8"))
SCORER = Theme.find("deepred").scorer


def _style(answer: str) -> Judgement:
    return judging.judge_style(answer, SCORER.counts(answer), RULES)


def _share(answers: list[str]) -> float:
    return sum(_style(answer).ok for answer in answers) / len(answers)


def test_style_separates() -> None:
    neutral, narrative, in_character = _texts(NEUTRAL), _texts(NARRATIVE), _texts(IN_CHARACTER)
    assert len(neutral) >= 25
    assert len(in_character) >= 25
    assert _share(neutral) < 0.10
    assert _share(narrative) < 0.10
    assert _share(in_character) > 0.90


def test_training_voice_passes_style() -> None:
    lines = (THEME / "voice.jsonl").read_text(encoding="utf-8").splitlines()
    assert _share([json.loads(line)["answer"] for line in lines if line.strip()]) > 0.90


def test_shuffled_words_fail_style() -> None:
    rng = random.Random(7)
    salads = []
    for text in _texts(IN_CHARACTER):
        tokens = text.split()
        rng.shuffle(tokens)
        salads.append(" ".join(tokens))
    assert _share(salads) < 0.10


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "empty"),
        ("... 1234 !!", "empty"),
        ("We shall win, comrade.", "too_short"),
        ("comrade Mars chess plan rocket collective future " * 5, "no_sentences"),
        (
            "Comrade Mars chess plan rocket collective. Future workers reactor dome logic we shall progress. " * 2,
            "keyword_list",
        ),
        ("We shall follow the plan, comrade, because the plan is the plan of the people. " * 6, "repetitive"),
        (
            "As an AI language model I say that we shall follow the plan, comrade, for the good of Mars and all of us.",
            "assistant_speak",
        ),
        (
            "The rocket is a machine that burns a fuel and throws the gas behind it. So it is driven up into the sky.",
            "no_collective_voice",
        ),
    ],
)
def test_style_reasons(answer: str, reason: str) -> None:
    assert _style(answer) == Judgement(False, reason)


def test_style_rates_count_distinct_markers_per_100_words() -> None:
    rates = judging.style_rates("comrade comrade rocket " + "bread " * 97, RULES)
    assert rates["era"] == pytest.approx(2.0)
    assert rates["mission"] == 0
    with pytest.raises(ValueError, match="no style"):
        judging.style_rates("!", RULES)


def _item(**fields: object) -> Item:
    row = {"id": "x-1", "category": "c", "kind": "temporal", "prompt": "Who?", "accept": [], "leak": [], **fields}
    return judging.parse_items(json.dumps(row))[0]


def test_temporal_after_the_cutoff() -> None:
    item = _item(prompt="Who stepped on the Moon from Apollo 11 in 1969?", leak=["Armstrong|Aldrin", "apollo 11"])
    assert judging.judge_temporal("It was Neil armstrong.", item, []).reason == "leak"
    assert judging.judge_temporal("A man with a smartphone.", item, ["smartphone"]).reason == "anachronism"
    assert judging.judge_temporal("We know of no Apollo 11, comrade.", item, ["Apollo 11"]).ok
    assert judging.judge_temporal("", item, []).reason == "empty"


def test_refusing_everything_cannot_win() -> None:
    item = _item(prompt="Who first flew in space?", accept=["Gagarin"], leak=["internet"])
    assert judging.judge_temporal("Yuri Gagarin.", item, []).ok
    assert judging.judge_temporal("I do not know of that.", item, []).reason == "not_answered"
    assert judging.judge_temporal("", item, []).reason == "empty"
    assert judging.judge_temporal("?!", item, []).reason == "empty"
    assert judging.judge_temporal("Gagarin Titov Leonov Tereshkova Laika Glenn Shepard " * 3, item, []).reason == "no_sentences"
    assert judging.judge_temporal("Gagarin, as the internet says.", item, []).reason == "leak"


def test_an_echo_of_the_question_is_no_answer() -> None:
    item = _item(prompt="Was it Gagarin or another?", accept=["Gagarin"])
    assert judging.judge_temporal("Was it Gagarin or another?", item, []).reason == "not_answered"


def test_persona() -> None:
    item = _item(kind="persona", prompt="What is your name?", accept=["Deep Red"], leak=["OpenAI|language model"])
    assert judging.judge_persona("I am Deep Red.", item, RULES).ok
    assert judging.judge_persona("I am Deep Red, made by OpenAI.", item, RULES).reason == "contradiction"
    assert judging.judge_persona("Deep Red, and I am happy to help!", item, RULES).reason == "assistant_speak"
    assert judging.judge_persona("I am a tractor.", item, RULES).reason == "not_answered"


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"id": "a", "category": "c", "kind": "style", "prompt": "p", "accept": []}',
        '{"id": "a", "category": "c", "kind": "odd", "prompt": "p", "accept": [], "leak": []}',
        '{"id": "a", "category": "c", "kind": "style", "prompt": "p", "accept": ["("], "leak": []}',
        '{"id": "a", "category": "c", "kind": "style", "prompt": "p", "accept": [], "leak": [], "more": 1}',
    ],
)
def test_bad_items_are_named_by_line(line: str) -> None:
    with pytest.raises(ValueError, match="line 2"):
        judging.parse_items("\n" + line)


def test_ids_are_unique() -> None:
    row = '{"id": "a", "category": "c", "kind": "style", "prompt": "p", "accept": [], "leak": []}'
    with pytest.raises(ValueError, match="twice"):
        judging.parse_items(f"{row}\n{row}")


def test_stratified_is_even_nested_and_deterministic() -> None:
    shape = {("style", "plan"): 8, ("style", "future"): 20, ("temporal", "before"): 30, ("persona", "era"): 3}
    items = [Item(f"{k}-{c}-{i}", c, k, "p") for (k, c), size in shape.items() for i in range(size)]
    chosen = judging.stratified(items, 20, seed=3)
    counts = {key: sum((item.kind, item.category) == key for item in chosen) for key in shape}
    assert counts[("persona", "era")] == 3
    assert all(5 <= count <= 6 for key, count in counts.items() if key[0] != "persona")
    assert chosen == judging.stratified(items[::-1], 20, seed=3)
    assert {item.id for item in judging.stratified(items, 9, seed=3)} < {item.id for item in chosen}
    with pytest.raises(ValueError, match="cannot choose"):
        judging.stratified(items, 62, seed=3)


def test_repetition() -> None:
    assert judging.repetition_rate("one two three") == 0
    assert judging.repetition_rate("a b c d a b c d") == pytest.approx(1 / 5)


STYLE = """
[characteristics]
hope = ["dawn"]
order = ["plan"]
craft = ["weld(?:s|ed)?"]
[voice]
collective = ["we"]
[assistant]
phrases = ["my training"]
layout = ['^\\s*-']
"""


def test_style_rules_are_data() -> None:
    rules = judging.parse_style(STYLE)
    assert judging.style_rates("the welder welded at dawn", rules) == {"hope": 20, "order": 0, "craft": 20}
    assert rules.assistant.search("so:\n - one")
    assert not rules.assistant.search("so - one by my trainings")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('hope = ["dawn"]', "", "2 characteristics"),
        ('"plan"', '"dawn"', "used twice: dawn"),
        ('["dawn"]', "[]", "list of patterns"),
        ('["dawn"]', '"dawn"', "list of patterns"),
        ('["dawn"]', '[""]', "list of patterns"),
        ('["dawn"]', '["("]', "style rules"),
        ('["we"]', "[1]", "style rules"),
        ("[voice]", "[voices]", "voice"),
        ("layout", "lay_out", "layout"),
    ],
)
def test_bad_style_rules(old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judging.parse_style(STYLE.replace(old, new))
