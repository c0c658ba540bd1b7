"""Which systems an evaluation has, what each is asked, and what training has seen of it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from deepred_ray.config import Config
from deepred_ray.engine import Messages, Reply, Sampling
from deepred_ray.errors import InputError, ModelError
from deepred_ray.runs import Run
from deepred_ray.schema import ANSWERS, ASKED, CHUNKS
from deepred_ray.stages.asking import AskPrompts, Source, System, parse_source, plan, read_answers, systems
from deepred_ray.stages.evaluate import choose, contaminated
from deepred_ray.stages.fluency import as_row, general_prose
from deepred_ray.stages.pool import write_blocks
from deepred_ray.stages.tokens import exemplars
from deepred_ray.storage import rows_table
from deepred_ray.text.items import Item
from deepred_ray.theme import Theme

THEME = Theme.find("deepred")
ITEMS = [
    Item("style-plan-001", "plan", "style", "And shorter?", lead=("Who keeps the air?", "How?")),
    *(Item(f"persona-era-{number:03d}", "era", "persona", f"What year is it, {number}?") for number in range(8)),
]


def config(*others: str) -> Config:
    return Config.model_validate({"evaluate": {"others": others}})


def test_a_trained_run_has_three_systems_and_the_tuned_one_is_last(tmp_path: Path) -> None:
    gguf = tmp_path / "a.gguf"
    gguf.touch()
    found = systems(config("big@http://127.0.0.1:1/v1", str(gguf)), "/m/base", "/m/adapter", gguf.with_name("own.gguf"))
    assert [(system.name, system.prompted, system.adapted) for system in found] == [
        ("base", False, False),
        ("base+prompt", True, False),
        ("big", True, False),
        ("a", True, False),
        ("tuned GGUF", True, False),
        ("tuned", True, True),
    ]
    # One load serves all three: they have one source.
    assert len({system.source for system in found if system.name in ("base", "base+prompt", "tuned")}) == 1
    assert found[-1].label == "base + adapter, with the persona's system prompt"
    assert found[2].label == "big at http://127.0.0.1:1/v1, with the persona's system prompt"


def test_without_a_trained_run_others_are_asked_with_and_without_the_prompt() -> None:
    assert [system.name for system in systems(config("x@http://h/v1"), "base", None, None)] == ["x bare", "x"]
    assert [system.name for system in systems(config(), "base", None, None)] == ["base", "base+prompt"]
    with pytest.raises(InputError, match="one name"):
        systems(config("x@http://h/v1", "x@http://g/v1"), "base", None, None)


def test_other_models_that_are_not_there_are_named(tmp_path: Path) -> None:
    assert parse_source("org/name@http://127.0.0.1:8080") == Source("endpoint", "org/name", "http://127.0.0.1:8080")
    with pytest.raises(ModelError, match=r"no GGUF file .*none\.gguf"):
        parse_source(str(tmp_path / "none.gguf"))
    with pytest.raises(ModelError, match="no model"):
        parse_source("./nowhere")


def test_each_system_is_asked_everything_once_and_the_personas_prompts_again_in_another_order() -> None:
    base = Source("hf", "m", adapter="a")
    asked = plan([System("tuned", base, adapted=True), System("base", base)], ITEMS, retests=2, seed=1)
    assert len(asked) == 2 * (9 + 2 * 8)
    # What wants no adapter comes first.
    assert [row["system"] for row in asked] == ["base"] * 25 + ["tuned"] * 25
    drawn = [[row["prompt_id"] for row in asked[:25] if row["draw"] == draw] for draw in (0, 1, 2)]
    assert drawn[0] == [item.id for item in ITEMS]
    assert sorted(drawn[1]) == sorted(drawn[2]) == drawn[0][1:]
    assert drawn[1] != drawn[2] != drawn[0][1:]
    assert asked == plan([System("tuned", base, adapted=True), System("base", base)], ITEMS, retests=2, seed=1)


class Echo:
    """An engine that says back how it was asked."""

    async def chat(self, messages: Messages, sampling: Sampling, **told: Any) -> Reply:
        if messages[-1]["content"] == "refuse":
            return Reply("too long", "error", 0, 0)
        if messages[-1]["content"] == "kill":
            raise RuntimeError("the engine died")
        said = f"{len(messages)} {messages[0]['role']} {messages[-1]['content']} {sampling.temperature} {told}"
        return Reply(f" {said} ", "stop", 1, 5)

    def shutdown(self) -> None: ...


def test_turns_are_answered_one_after_the_other_and_kept(tmp_path: Path) -> None:
    run = Run(str(tmp_path), "r")
    base = Source("hf", "m")
    by_name = {"base": System("base", base, prompted=False), "tuned": System("tuned", base, adapted=True)}
    rows = [{"system": name, "prompt_id": "style-plan-001", "draw": draw} for name, draw in (("base", 0), ("tuned", 1))]
    write_blocks(run.table("answers.todo"), rows, ASKED, 64)
    turns = {item.id: item.turns for item in ITEMS} | {"bad": ("refuse",), "deadly": ("kill",)}
    actor = AskPrompts(run, lambda _: Echo(), base, by_name, turns, "Be red.", 9)

    async def drain(name: str) -> list[dict[str, Any]]:
        return [row async for table in actor({"block": [name]}) for row in table.to_pylist()]

    names = [file.name for file in run.table("answers.todo").files(".parquet")]
    told = [row for name in names for row in asyncio.run(drain(name))]
    assert sum(row["count"] for row in told) == 2
    assert all(row["started"] <= row["ended"] for row in told)
    found = read_answers(run.table("answers"))
    # Three turns of the user and two answers; the tuned one has a system prompt before them.
    assert found["base", "style-plan-001", 0]["answer"] == "5 user And shorter? 0.0 {}"
    assert found["tuned", "style-plan-001", 1]["answer"] == "6 system And shorter? 0.7 {'adapter': True}"
    assert run.table("answers").read_table(ANSWERS).num_rows == 2
    for name, said in (("bad", "base refused prompt bad: too long"), ("deadly", "of base dies of prompt deadly: RuntimeError")):
        write_blocks(run.table(name), [{"system": "base", "prompt_id": name, "draw": 0}], ASKED, 64)
        actor.todo = run.table(name)
        with pytest.raises(ModelError, match=said):
            asyncio.run(drain(run.table(name).files(".parquet")[0].name))


def test_prompts_that_stand_in_the_training_data_are_found() -> None:
    long = Item(
        "style-plan-002", "plan", "style", "Tell me who keeps the air of the city sweet when all of us are asleep at night."
    )
    said = "Well: who keeps the air of the city sweet when all of us are asleep, then?"
    rows = [
        {"messages": [{"role": "system", "content": "What year is it, 3?"}, {"role": "user", "content": said}]},
        {
            "messages": [
                {"role": "user", "content": "Now, what year is it, 5?"},
                {"role": "assistant", "content": "And shorter it is."},
            ]
        },
    ]
    assert contaminated([*ITEMS, long], rows) == {"style-plan-002", "persona-era-005"}
    assert contaminated([*ITEMS, long], []) == set()
    with pytest.raises(InputError, match="the theme has 9"):
        choose(ITEMS, 10)
    assert choose(ITEMS, None) == ITEMS


def test_no_prompt_stands_in_what_the_theme_teaches() -> None:
    assert contaminated(THEME.evaluation, exemplars(THEME, 1).to_pylist()) == set()


def test_exemplars_are_taught_so_often_under_their_personas_prompts() -> None:
    rows = exemplars(THEME, 2).to_pylist()
    assert len(rows) == len({row["example_id"] for row in rows}) == 2 * len(THEME.phrasebook.voice)
    first, again = rows[0]["messages"], rows[1]["messages"]
    assert first[1:] == again[1:]
    persona = THEME.personas[THEME.phrasebook.voice[0].persona].system
    assert [first[0]["content"], again[0]["content"]] == list(persona[:2])
    assert {row["split"] for row in rows} == {"train"}


def test_general_prose_is_of_the_runs_books_or_else_the_themes(tmp_path: Path) -> None:
    run = Run(str(tmp_path), "r")
    assert general_prose(run, THEME, 3) == list(THEME.reference("prose")[:3])
    rows = [
        dict.fromkeys(CHUNKS.names) | {"chunk_id": str(number), "text": f"t{number}", "reason": reason, "kept": reason is None}
        for number, reason in enumerate(["low_score", None, "low_score", "too_short"])
    ]
    run.table("chunks").write_table(rows_table(rows, CHUNKS), "all")
    assert sorted(general_prose(run, THEME, 2)) == ["t0", "t2"]
    assert general_prose(run, THEME, 3)[2] == THEME.reference("prose")[0]


def test_of_a_text_all_tokens_but_the_first_count() -> None:
    row = as_row([7, 8, 9])
    assert row.trained.tolist() == [False, True, True]
    assert (row.trained_tokens, row.lengths) == (2, (3,))
