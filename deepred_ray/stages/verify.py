"""What llama.cpp makes of a GGUF file, against what transformers makes of the merged model: the same texts, chats and tokens."""

import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

from deepred_ray.errors import DeepredError
from deepred_ray.text.hard_texts import hard_texts

MOST_OTHER = 0.1

Spoken = dict[str, Any]
"""A prompt and an answer, as token ids, and `nats`, the summed negative log probability of the answer in the merged model."""


def verify_texts(llama: Any, tokenizer: Any, conversations: list[Any], texts: list[str]) -> dict[str, Any]:
    """How many of the texts (`hard_texts`, with these among them) have the same token ids in llama.cpp and in transformers, and
    which have not.

    Raises:
        DeepredError: a rendered chat prompt differs, or over a tenth of the texts.
    """
    for chat in conversations:
        ours, theirs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False), llama.render(chat)
        if ours != theirs:
            raise DeepredError(f"llama.cpp renders a chat otherwise than the base's template: {theirs!r}, wanted {ours!r}")
    asked = hard_texts(sorted(set(tokenizer.all_special_tokens)), texts)
    other = [text for text in asked if llama.tokenize(text) != list(tokenizer(text, add_special_tokens=False)["input_ids"])]
    if len(other) > MOST_OTHER * len(asked):
        raise DeepredError(
            f"llama.cpp splits {len(other)} of {len(asked)} texts otherwise than the base's tokenizer, such as {other[0]!r}",
            "llama.cpp may not know this tokenizer; ask its model with vLLM instead.",
        )
    return {"texts": len(asked), "token_ids_equal": len(asked) - len(other), "token_ids_differ": other}


def verify_answers(llama: Any, answers: Sequence[Spoken], held_out: Sequence[Spoken]) -> dict[str, Any]:
    """The merged model's greedy answers, and texts of others, in llama.cpp.

    `top1_agreement`: how often llama.cpp's likeliest next token is the merged model's, along its own answers. `largest_margin`:
    where it is not, how much likelier llama.cpp holds its own, in nats; near 0 the two were all but equal. `greedy_equal` counts
    whole greedy answers that are the same; `tokens_per_s` is of these, prompts read before. `perplexity` is of the held-out texts,
    beside that of the merged model.
    """
    same = total = equal = 0
    margin = seconds = 0.0
    for item in answers:
        scores = llama.score(item["prompt"], item["answer"])
        for score, token in zip(scores, item["answer"], strict=True):
            same += score.likeliest == token
            margin = max(margin, 0.0 if score.likeliest == token else score.likeliest_logprob - score.logprob)
        total += len(item["answer"])
        started = time.perf_counter()
        # Of an empty one there is nothing to ask: it is the end of the turn.
        equal += not item["answer"] or llama.complete(item["prompt"], len(item["answer"])) == item["answer"]
        seconds += time.perf_counter() - started
    nats = -sum(score.logprob for item in held_out for score in llama.score(item["prompt"], item["answer"]))
    return {
        "top1_agreement": same / total if total else 1.0,
        "tokens": total,
        "largest_margin": round(margin, 4),
        "greedy_equal": equal,
        "answers": len(answers),
        "tokens_per_s": round(total / seconds, 1) if seconds else 0.0,
        "perplexity": perplexity(nats, held_out),
        "perplexity_merged": perplexity(sum(item["nats"] for item in held_out), held_out),
        "held_out_tokens": sum(len(item["answer"]) for item in held_out),
    }


def perplexity(nats: float, texts: Iterable[Spoken]) -> float:
    """exp of the mean negative log probability of a token."""
    return math.exp(nats / max(1, sum(len(item["answer"]) for item in texts)))


def perplexity_change(verified: dict[str, Any]) -> float:
    """Share by which the file's perplexity is above the merged model's."""
    return float(verified["perplexity"] / verified["perplexity_merged"] - 1)
