"""What export refuses, and what it holds a GGUF file against."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import write_model
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from deepred_ray.config import Config, TrainConfig
from deepred_ray.errors import DeepredError, InputError, ModelError
from deepred_ray.runs import Run
from deepred_ray.schema import TOKENIZED
from deepred_ray.stages import export
from deepred_ray.stages.tokens import arrange
from deepred_ray.storage import rows_table
from deepred_ray.theme import Theme


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_model(tmp_path / "base")


def adapter_of(folder: Path, hidden: int) -> Path:
    config = LlamaConfig(vocab_size=100, hidden_size=hidden, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    config.name_or_path = "somebody/else"
    get_peft_model(LlamaForCausalLM(config), LoraConfig(r=2, target_modules="all-linear")).save_pretrained(folder)
    return folder


def test_an_adapter_for_another_base_is_refused_with_the_base_that_it_is_for(base: Path, tmp_path: Path) -> None:
    adapter = adapter_of(tmp_path / "adapter", 32)
    with pytest.raises(ModelError, match="does not fit the base") as caught:
        export.load_adapter(str(base), str(adapter))
    assert str(adapter) in caught.value.message
    assert caught.value.cure == "It was trained on somebody/else: name that with --model."


def test_a_merged_folder_that_is_not_of_an_export_is_left_alone(base: Path, tmp_path: Path) -> None:
    adapter = adapter_of(tmp_path / "adapter", 64)
    run = Run(str(tmp_path / "runs"), "mine")
    mine = tmp_path / "runs" / "mine" / "merged" / "model.safetensors"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    config = Config.model_validate({"run": "mine", "model": str(base), "export": {"adapter": str(adapter)}})
    with pytest.raises(InputError, match="is there and is not what export made"):
        export.run(run, config, Theme.find("deepred"))
    assert mine.read_text() == "mine"


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    run = Run(str(tmp_path), "mine")
    with pytest.raises(DeepredError, match="no room for gguf/deepred-f16 in ") as caught, run.artefact("gguf/deepred-f16") as draft:
        (draft / "half").write_text("half")
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    assert "choose another --data-root" in caught.value.cure
    assert not list((tmp_path / "mine").rglob("half"))


def test_held_out_answers_are_those_of_the_validation_split_without_the_ends_of_their_turns(tmp_path: Path) -> None:
    run = Run(str(tmp_path), "mine")
    rows = [
        ("a", "val", [1, 2, 3, 4, 9, 5, 6, 9], "---++-++"),  # two turns
        ("b", "val", [1, 2, 9], "--+"),  # an answer of nothing but its end
        ("c", "train", [1, 7, 9], "-++"),
    ]
    made = [
        {"example_id": name, "split": split, "input_ids": ids, "trained": [sign == "+" for sign in signs]}
        for name, split, ids, signs in rows
    ]
    (run.folder / "draft").write_table(rows_table(made, TOKENIZED), "all")
    arrange(run.folder / "draft", run.table("tokens"), TrainConfig())
    assert sorted(export.held_out_answers(run)) == [([1, 2, 3], [4]), ([1, 2, 3, 4, 9, 5], [6])]
    assert list(export.held_out_answers(Run(str(tmp_path), "none"))) == []


def test_the_nats_of_an_answer_are_the_models(base: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(base).eval()
    with torch.no_grad():
        told = torch.log_softmax(model(torch.tensor([[3, 4, 5, 6]])).logits[0], 1)
        found = export.spoken(model, [3, 4], [5, 6])
    assert (found["prompt"], found["answer"]) == ([3, 4], [5, 6])
    assert found["nats"] == pytest.approx(-float(told[1, 5] + told[2, 6]), rel=1e-4)


def test_answers_are_scored_without_the_tokens_that_are_parts_of_a_character(base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    answer = tokenizer("We hold Æther and ★", add_special_tokens=False)["input_ids"]
    runs = list(export.whole_tokens(tokenizer, [7], answer))
    assert [tokenizer.decode(run) for _, run in runs] == ["We hold ", "ther and "]
    assert [before[1:] + run for before, run in runs] == [answer[: len(before) - 1 + len(run)] for before, run in runs]
    assert all(before[0] == 7 for before, _ in runs)


def test_a_greedy_answer_ends_with_whatever_ends_it(base: Path) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(base), LlamaForCausalLM.from_pretrained(base).eval()
    with torch.no_grad():
        whole = export.greedy(model, [3, 4], tokenizer)
        assert whole
        model.generation_config.eos_token_id = [tokenizer.eos_token_id, whole[0]]
        assert export.greedy(model, [3, 4], tokenizer) == []
        empty = export.spoken(model, [3, 4], [])
    assert empty == {"prompt": [3, 4], "answer": [], "nats": 0.0}
