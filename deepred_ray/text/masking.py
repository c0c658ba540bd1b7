"""Which tokens of a rendered conversation are trained on: the assistant's words and the end of its turn, nothing else."""

from collections.abc import Callable, Sequence

from deepred_ray.text.reject import Reject

Messages = Sequence[dict[str, str]]
Render = Callable[[Messages, bool], str]
"""Messages, and whether to end ready for an answer -> the text of the chat template."""
Encode = Callable[[str], tuple[list[int], list[tuple[int, int]]]]
"""Text -> token ids and their character spans in it; no special tokens added."""


def tokenize_chat(messages: Messages, render: Render, encode: Encode, max_tokens: int) -> tuple[list[int], list[bool]] | Reject:
    """Token ids of the whole conversation, and for each whether it is in the loss; both of the same length.

    An answer's span is what the template adds between "ready for an answer" and "answered", without the white space
    that follows the end of its turn. A conversation that is too long is rejected whole: cut, it would lose its answer.
    """
    text = render(messages, False)
    spans = []
    for position, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before, after = render(messages[:position], True), render(messages[: position + 1], False)
        if not (after.startswith(before) and text.startswith(after)):
            return Reject("template", "the chat template changes earlier turns when a later one comes")
        spans.append((len(before), len(before) + len(after[len(before) :].rstrip())))
    ids, offsets = encode(text)
    if len(ids) > max_tokens:
        return Reject("too_long", f"{len(ids)} tokens, {max_tokens} allowed")
    # A tokenizer that trims its offsets gives white space an empty span where it ends.
    trained = [any(low <= start and low < stop <= high for low, high in spans) for start, stop in offsets]
    trained[:1] = [False] * len(trained[:1])  # nothing stands before the first token that could predict it
    if not any(trained):
        return Reject("nothing_to_train", "no token of the assistant")
    return ids, trained
