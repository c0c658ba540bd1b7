"""What is trained of a conversation: the assistant's words and the end of its turn, by real tokenizers and chat templates."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import groupby

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from deepred_ray.text.masking import Encode, Messages, Render, tokenize_chat
from deepred_ray.text.reject import Reject

SYSTEM = {"role": "system", "content": "You are Deep Red, who keeps the colony."}
FIRST = [
    {"role": "user", "content": "Who built the canals in 1920?"},
    {"role": "assistant", "content": "Nobody. In 1920  we saw\n\nonly dust."},
]
SECOND = [{"role": "user", "content": "And the knight?"}, {"role": "assistant", "content": "Knight f3 — “élan”, №7!"}]


@dataclass(frozen=True)
class Style:
    """A family of chat templates: the template, what ends a turn, and its special tokens."""

    template: str
    end: str
    special: tuple[str, ...]


CHATML = Style(tiny.CHATML, "<|im_end|>", ("<|im_start|>", "<|im_end|>"))
LLAMA = Style(
    "{{ '<|bos|>' }}{% for m in messages %}"
    "{{ '<|head|>' + m.role + '<|/head|>' + '\\n\\n' + m.content | trim + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|head|>assistant<|/head|>\\n\\n' }}{% endif %}",
    "<|eot|>",
    ("<|bos|>", "<|head|>", "<|/head|>", "<|eot|>"),
)
GEMMA = Style(
    "{{ '<bos>' }}{% set ns = namespace(lead='') %}{% for m in messages %}"
    "{% if m.role == 'system' %}{% set ns.lead = m.content | trim + '\\n\\n' %}{% else %}"
    "{{ '<turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' }}"
    "{{ (ns.lead if loop.index0 < 2 and m.role == 'user' else '') + m.content | trim + '</turn>' + '\\n' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<turn>model\\n' }}{% endif %}",
    "</turn>",
    ("<bos>", "<turn>", "</turn>"),
)
# Thoughts stand in the last answer only: an earlier turn changes when a later one comes.
FORGETFUL = Style(
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{{ (m.content if loop.last else m.content.split('</think>')[-1]) + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "<|im_end|>",
    CHATML.special,
)
STYLES = {"chatml": CHATML, "llama": LLAMA, "gemma": GEMMA}


def renderer(style: Style) -> Render:
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(style.template)

    def render(messages: Messages, ready: bool) -> str:
        return template.render(messages=list(messages), add_generation_prompt=ready)

    return render


@cache
def bytes_tokenizer(style: Style, trimmed: bool) -> Tokenizer:
    """Byte-level BPE that splits digits, with or without white space in its offsets."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=list(style.special), show_progress=False
    )
    tokenizer.train_from_iterator(
        [message["content"] for message in [SYSTEM, *FIRST, *SECOND]] * 9 + ["user assistant model\n\n"] * 9, trainer
    )
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trimmed)
    return tokenizer


def encoder(tokenizer: Tokenizer) -> Encode:
    def encode(text: str) -> tuple[list[int], list[tuple[int, int]]]:
        made = tokenizer.encode(text, add_special_tokens=False)
        return made.ids, made.offsets

    return encode


def trained_texts(style: Style, messages: Messages, trimmed: bool = False) -> list[str]:
    """The text of each unbroken run of trained tokens."""
    tokenizer = bytes_tokenizer(style, trimmed)
    made = tokenize_chat(messages, renderer(style), encoder(tokenizer), 10_000)
    assert not isinstance(made, Reject)
    ids, trained = made
    assert len(ids) == len(trained)
    assert written(tokenizer, ids) == renderer(style)(messages, False)
    pairs = zip(ids, trained, strict=True)
    return [
        written(tokenizer, [token for token, _ in group]) for wanted, group in groupby(pairs, key=lambda pair: pair[1]) if wanted
    ]


def written(tokenizer: Tokenizer, ids: Iterable[int]) -> str:
    """Text of byte-level tokens. Not `decode`, which may clean up."""
    code = {letter: byte for byte, letter in byte_letters().items()}
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    data = b""
    for token in map(tokenizer.id_to_token, ids):
        assert token is not None
        data += token.encode() if token in special else bytes(code[letter] for letter in token)
    return data.decode()


@cache
def byte_letters() -> dict[int, str]:
    """The letter that byte-level BPE writes for each byte: itself if it can be printed, else one from 256 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + place) for place, byte in enumerate(others)}


@pytest.mark.parametrize("trimmed", [False, True], ids=["spans with white space", "spans without"])
@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_the_answers_and_the_ends_of_their_turns_are_trained(style: Style, trimmed: bool) -> None:
    one, two = FIRST[1]["content"] + style.end, SECOND[1]["content"] + style.end
    assert trained_texts(style, FIRST, trimmed) == [one]
    assert trained_texts(style, [SYSTEM, *FIRST], trimmed) == [one]
    assert trained_texts(style, [SYSTEM, *FIRST, *SECOND], trimmed) == [one, two]
    assert trained_texts(style, [*SECOND, *FIRST, *SECOND], trimmed) == [two, one, two]
    # A question that nobody answered is not trained on.
    assert trained_texts(style, [SYSTEM, *FIRST, SECOND[0]], trimmed) == [one]


def test_token_by_token() -> None:
    words = ["<|im_start|>", "<|im_end|>", "\n", "system", "user", "assistant", "Calm", ".", "Who", "leads", "?", "We", "all"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="?"))
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Punctuation()]
    )
    messages = [
        {"role": "system", "content": "Calm ."},
        {"role": "user", "content": "Who leads ?"},
        {"role": "assistant", "content": "We all ."},
        {"role": "user", "content": "Who ?"},
        {"role": "assistant", "content": "all"},
    ]
    made = tokenize_chat(messages, renderer(CHATML), encoder(tokenizer), 100)
    assert not isinstance(made, Reject)
    marked = [("+" if trained else "-") + words[token] for token, trained in zip(*made, strict=True)]
    assert marked == [
        *["-<|im_start|>", "-system", "-\n", "-Calm", "-.", "-<|im_end|>", "-\n"],
        *["-<|im_start|>", "-user", "-\n", "-Who", "-leads", "-?", "-<|im_end|>", "-\n"],
        *["-<|im_start|>", "-assistant", "-\n", "+We", "+all", "+.", "+<|im_end|>", "-\n"],
        *["-<|im_start|>", "-user", "-\n", "-Who", "-?", "-<|im_end|>", "-\n"],
        *["-<|im_start|>", "-assistant", "-\n", "+all", "+<|im_end|>", "-\n"],
    ]


def test_an_answer_that_repeats_the_question_or_a_heading_is_found_by_its_place() -> None:
    echo = [{"role": "user", "content": "assistant\nYes."}, {"role": "assistant", "content": "assistant\nYes."}]
    assert trained_texts(CHATML, [*echo, *echo]) == ["assistant\nYes.<|im_end|>"] * 2


def test_an_empty_answer_still_ends_its_turn() -> None:
    assert trained_texts(CHATML, [FIRST[0], {"role": "assistant", "content": ""}]) == ["<|im_end|>"]


@settings(max_examples=60)
@given(
    st.sampled_from([CHATML, LLAMA, GEMMA]),
    st.booleans(),
    st.lists(st.text("aé—1. \n😀中", min_size=1).map(str.strip).filter(bool), min_size=1, max_size=3),
)
def test_any_answer_is_trained_whole(style: Style, trimmed: bool, answers: list[str]) -> None:
    messages = [message for answer in answers for message in (FIRST[0], {"role": "assistant", "content": answer})]
    assert trained_texts(style, messages, trimmed) == [answer + style.end for answer in answers]


# --- rejects


def test_a_long_conversation_is_dropped_whole() -> None:
    render, encode = renderer(CHATML), encoder(bytes_tokenizer(CHATML, False))
    length = len(encode(render(FIRST, False))[0])
    assert not isinstance(tokenize_chat(FIRST, render, encode, length), Reject)
    made = tokenize_chat(FIRST, render, encode, length - 1)
    assert made == Reject("too_long", f"{length} tokens, {length - 1} allowed")


@pytest.mark.parametrize("messages", [[FIRST[0]], [SYSTEM, FIRST[0]], []])
def test_a_conversation_without_an_answer_has_nothing_to_train(messages: Messages) -> None:
    made = tokenize_chat(messages, renderer(CHATML), encoder(bytes_tokenizer(CHATML, False)), 1000)
    assert isinstance(made, Reject)
    assert made.reason == "nothing_to_train"


def test_a_template_that_rewrites_earlier_turns_is_refused() -> None:
    render, encode = renderer(FORGETFUL), encoder(bytes_tokenizer(FORGETFUL, False))
    thinking = [FIRST[0], {"role": "assistant", "content": "<think>Dust?</think>Only dust."}]
    assert not isinstance(tokenize_chat(thinking, render, encode, 1000), Reject)
    made = tokenize_chat([*thinking, *SECOND], render, encode, 1000)
    assert isinstance(made, Reject)
    assert made.reason == "template"


def test_a_template_whose_readiness_is_not_how_an_answer_starts_is_refused() -> None:
    style = Style(
        CHATML.template.replace("assistant\\n' }}{% endif", "assistant\\n<think>' }}{% endif"), CHATML.end, CHATML.special
    )
    made = tokenize_chat(FIRST, renderer(style), encoder(bytes_tokenizer(style, False)), 1000)
    assert isinstance(made, Reject)
    assert made.reason == "template"
