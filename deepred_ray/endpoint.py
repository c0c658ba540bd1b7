"""The other engine: a server with an OpenAI-compatible API, such as LM Studio, a remote vLLM or llama.cpp."""

import asyncio
import json
import os
import time
from typing import Any

from deepred_ray.engine import EngineSettings, Messages, Reply, Sampling
from deepred_ray.errors import ModelError

RETRIES = 6
"""Of a request that found the server busy, or not at all: after 0.5, 1, 2 ... 8 seconds, or as long as the server says."""
TIMEOUT_S = 600.0
KEY = "OPENAI_API_KEY"


class EndpointEngine:
    """The server at `settings.endpoint`, with or without the `/v1` at its end.

    A key is only ever read from the environment. Of the words that are never to be said, and of going on with an answer that has
    begun, only some servers know: vLLM of both, llama.cpp of the latter. What comes out otherwise, the validators refuse.

    Raises:
        ModelError: nobody answers there, the key is refused, or the server does not have the model.
    """

    def __init__(self, settings: EngineSettings) -> None:
        import openai

        self.settings = settings
        self.url = f"{str(settings.endpoint).rstrip('/').removesuffix('/v1')}/v1"
        self._options: dict[str, Any] = {"base_url": self.url, "api_key": os.environ.get(KEY) or "none", "max_retries": RETRIES}
        self._client: openai.AsyncOpenAI | None = None
        try:
            with openai.OpenAI(**self._options | {"max_retries": 1}, timeout=30.0) as client:
                served = [model.id for model in client.models.list()]
        except openai.AuthenticationError as error:
            raise ModelError(f"the server at {self.url} refuses the key", f"Put the right one into ${KEY}.") from error
        # What answers with something else, such as a web page, makes the client stumble.
        except (openai.OpenAIError, AttributeError, TypeError, ValueError) as error:
            raise ModelError(
                f"no OpenAI-compatible server answers at {self.url}: {without_key(error)}",
                "Start it, or mend --synthesize.endpoint.",
            ) from error
        if settings.model not in served:
            raise ModelError(
                f"the server at {self.url} does not have model {settings.model!r}",
                f"Name one that it has with --synthesis-model: {', '.join(map(repr, served)) or 'none is loaded'}.",
            )

    async def chat(self, messages: Messages, sampling: Sampling, *, opening: str = "") -> Reply:
        """The reply to `messages`, going on from the assistant's `opening`, which is not repeated in it.

        A request that the server refuses is a Reply with finish reason `error`. A server that is gone is raised.
        """
        import openai

        extra: dict[str, Any] = {"min_p": sampling.min_p, "repetition_penalty": sampling.repetition_penalty}
        if sampling.bad_words:
            extra["bad_words"] = list(sampling.bad_words)
        asked: list[Any] = list(messages)
        if opening:
            asked.append({"role": "assistant", "content": opening})
            extra |= {"add_generation_prompt": False, "continue_final_message": True}
        request: dict[str, Any] = {
            "model": self.settings.model,
            "messages": asked,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "extra_body": extra,
        }
        if sampling.schema:
            form = {"name": "reply", "schema": json.loads(sampling.schema), "strict": True}
            request["response_format"] = {"type": "json_schema", "json_schema": form}
        try:
            reply = await (self._timed(request) if self.settings.timed else self._whole(request))
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            return Reply(without_key(error), "error", 0, 0)
        except openai.OpenAIError as error:
            raise ModelError(
                f"the server at {self.url} failed: {without_key(error)}", "Look at its own log; the same command goes on."
            ) from error
        # llama.cpp and vLLM answer with what follows; others repeat how it began.
        text = reply.text.removeprefix(opening) if opening else reply.text
        return Reply(text, reply.finish_reason, reply.prompt_tokens, reply.tokens, reply.first_token_s)

    async def _whole(self, request: dict[str, Any]) -> Reply:
        done = await self._open().chat.completions.create(**request)
        choice, usage = done.choices[0], done.usage
        asked, made = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
        return Reply(choice.message.content or "", choice.finish_reason or "error", asked, made)

    async def _timed(self, request: dict[str, Any]) -> Reply:
        started = time.monotonic()
        first: float | None = None
        pieces, finish, usage = [], "error", None
        stream = await self._open().chat.completions.create(**request, stream=True, stream_options={"include_usage": True})
        async for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                if choice.delta.content:
                    first = first or time.monotonic() - started
                    pieces.append(choice.delta.content)
                finish = choice.finish_reason or finish
        asked, made = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, len(pieces))
        return Reply("".join(pieces), finish, asked, made, first)

    def _open(self) -> Any:
        import openai

        # Made where it is used: its connections belong to the event loop of the requests.
        if self._client is None:
            self._client = openai.AsyncOpenAI(**self._options, timeout=TIMEOUT_S)
        return self._client

    def shutdown(self) -> None:
        """The server is not ours to end; only the connections are."""
        if self._client:
            try:
                asyncio.get_running_loop().create_task(self._client.close())
            except RuntimeError:
                self._client = None


def without_key(error: Exception) -> str:
    """What a server says of an error; some repeat the key that they were sent."""
    key = os.environ.get(KEY)
    return str(error).replace(key, f"${KEY}") if key else str(error)
