"""What tokenizers are compared on, and what the comparison refuses: with a real tokenizer, made here, and itself for llama.cpp."""

from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from deepred_ray.errors import DeepredError
from deepred_ray.stages.verify import MOST_OTHER, verify_texts
from deepred_ray.text.hard_texts import FIXED, hard_texts

CHAT = [[{"role": "user", "content": "White to move?"}]]


def tokenizer() -> Any:
    """Bytes as tokens, and two special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = Tokenizer(models.BPE(vocab={char: number for number, char in enumerate(alphabet)}, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made: Any = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="<|end|>", bos_token="<|start|>")
    made.chat_template = "{% for m in messages %}<|start|>{{ m.content }}<|end|>{% endfor %}"
    return made


class Twin:
    """A tokenizer with llama.cpp's interface, which is wrong about texts that have one of `others`."""

    def __init__(self, like: Any, others: tuple[str, ...] = (), suffix: str = "") -> None:
        self.like, self.others, self.suffix = like, others, suffix

    def tokenize(self, text: str) -> list[int]:
        ids = list(self.like(text, add_special_tokens=False)["input_ids"])
        return [*ids[::-1], 0] if any(other in text for other in self.others) else ids

    def render(self, messages: Any) -> str:
        return str(self.like.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)) + self.suffix


def test_the_texts_are_of_all_kinds_and_each_once() -> None:
    texts = hard_texts(["<|end|>"], ["A question?", FIXED[0]])
    assert len(texts) == len(set(texts)) == len(FIXED) + 3 + 1
    for sample in ("é", "Товарищи", "Nf3", "O-O-O", "♔", "\t", "火", "🚀", "<|end|>user"):
        assert any(sample in text for text in texts)


def test_equal_tokenizers_are_equal_on_all() -> None:
    like = tokenizer()
    found = verify_texts(Twin(like), like, CHAT, ["A question?"])
    assert found == {"texts": len(FIXED) + 7, "token_ids_equal": len(FIXED) + 7, "token_ids_differ": []}


def test_a_few_other_texts_are_named_and_many_refused() -> None:
    like = tokenizer()
    found = verify_texts(Twin(like, ("½",)), like, CHAT, [])
    assert len(found["token_ids_differ"]) == 2 < MOST_OTHER * found["texts"]
    assert all("½" in text for text in found["token_ids_differ"])
    assert found["token_ids_equal"] == found["texts"] - 2
    with pytest.raises(DeepredError, match=r"splits \d+ of \d+ texts otherwise"):
        verify_texts(Twin(like, (" ",)), like, CHAT, [])


def test_another_chat_prompt_is_refused() -> None:
    like = tokenizer()
    with pytest.raises(DeepredError, match="renders a chat otherwise"):
        verify_texts(Twin(like, suffix="\n"), like, CHAT, [])
