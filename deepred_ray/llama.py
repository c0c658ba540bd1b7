"""llama.cpp, in process: load a GGUF file, answer a chat, tell the next token."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import requests

from deepred_ray.engine import Messages
from deepred_ray.errors import ModelError

CONTEXT_TOKENS = 2048
FORCED_AT_ONCE = 64


class Score(NamedTuple):
    """What llama.cpp thinks of one token of a text: its log probability in nats, the token that it holds likeliest there, and the
    log probability of that."""

    logprob: float
    likeliest: int
    likeliest_logprob: float


class Llama:
    """A GGUF file in llama.cpp's server, reached by function calls, and by others as model `name` at a `port` of loopback (0: any
    free one). It answers `parallel` requests at a time, each of at most `context` tokens.

    Raises:
        ModelError: llama.cpp cannot load the file.
    """

    def __init__(self, gguf: Path, context: int = CONTEXT_TOKENS, port: int = 0, name: str = "", parallel: int = 1) -> None:
        import xllamacpp

        if not gguf.is_file():
            raise ModelError(f"no GGUF file {gguf}", "Run `deepred export` first.")
        params = xllamacpp.CommonParams()
        params.model.path = str(gguf)
        params.n_ctx = context * parallel
        params.n_parallel = parallel
        params.cpuparams.n_threads = os.cpu_count() or 1
        params.warmup = False
        params.port = port  # on loopback
        if name:
            params.model_alias = {name}
        params.use_jinja = True
        params.verbosity = 0
        try:
            self._server = xllamacpp.Server(params)
        except RuntimeError as error:
            raise ModelError(f"llama.cpp cannot load {gguf}: {error}") from error

    @property
    def address(self) -> str:
        """Where its HTTP server listens."""
        return str(self._server.listening_address)

    def chat(self, messages: Messages, *, max_tokens: int, temperature: float, on_text: Callable[[str], None] | None = None) -> str:
        """The answer to `messages`; temperature 0 is greedy. `on_text` gets the pieces as they come."""
        request = {
            "messages": messages,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "stream": on_text is not None,
        }
        pieces: list[str] = []

        def piece(chunk: Any) -> None:
            for choice in loaded(chunk).get("choices", ()):
                if text := choice["delta"].get("content"):
                    pieces.append(text)
                    if on_text:
                        on_text(text)

        if on_text:
            self._server.handle_chat_completions(request, piece)
            return "".join(pieces)
        answer = checked(self._server.handle_chat_completions(request))
        return str(answer["choices"][0]["message"]["content"])

    def complete(self, ids: Sequence[int], max_tokens: int) -> list[int]:
        """Greedy token ids that follow `ids`."""
        answer = checked(
            self._server.handle_completions({"prompt": list(ids), "n_predict": max_tokens, "temperature": 0.0, "logprobs": 1})
        )
        return [int(token["id"]) for token in answer["choices"][0]["logprobs"]["content"]]

    def score(self, prompt: Sequence[int], ids: Sequence[int]) -> list[Score]:
        """What it thinks of each of `ids` after the prompt and those before it. None of them may end
        the generation, or be a part of a character's bytes."""
        scores: list[Score] = []
        for start in range(0, len(ids), FORCED_AT_ONCE):
            forced = ids[start : start + FORCED_AT_ONCE]
            # The server tells no probabilities of a prompt's tokens, but those of generated ones, before any constraint.
            request = {
                "prompt": [*prompt, *ids[:start]],
                "n_predict": len(forced),
                "temperature": 0.0,
                "logprobs": 1,
                "grammar": "root ::= " + " ".join(f"<[{token}]>" for token in forced),
            }
            told = checked(self._server.handle_completions(request))["choices"][0]["logprobs"]["content"]
            if [token["id"] for token in told] != list(forced):
                raise ModelError(f"llama.cpp did not generate the tokens that it was made to: {len(told)} of {len(forced)}")
            for token in told:
                best = token["top_logprobs"][0]
                scores.append(Score(float(token["logprob"]), int(best["id"]), float(best["logprob"])))
        return scores

    def tokenize(self, text: str) -> list[int]:
        """Token ids of the text, special tokens in it recognised and none added."""
        return [
            int(token)
            for token in self._post("/tokenize", {"content": text, "add_special": False, "parse_special": True})["tokens"]
        ]

    def render(self, messages: Messages) -> str:
        """The prompt that the file's own chat template makes of `messages`, up to the answer."""
        return str(self._post("/apply-template", {"messages": messages})["prompt"])

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        # What has no function of its own is asked over loopback.
        answer = requests.post(f"{self.address}{path}", json=body, timeout=60)
        return checked(answer.content)


def loaded(answer: Any) -> dict[str, Any]:
    value = json.loads(answer) if isinstance(answer, str | bytes) else answer
    return value if isinstance(value, dict) else {}


def checked(answer: Any) -> dict[str, Any]:
    """Raises ModelError if the server answered with an error."""
    value = loaded(answer)
    if "error" in value:
        raise ModelError(f"llama.cpp: {value['error']}")
    return value
