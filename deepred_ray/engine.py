"""A vLLM engine that many coroutines share: one for each actor of synthesis and evaluation.

Our own and not `ray.data.llm`: it tells the finish reason, gives a slot its retries without a second pass over the data,
fails one request instead of the job, and is not bound to the vLLM release that Ray was tested with.
"""

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from deepred_ray import models
from deepred_ray.errors import ModelError

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Reply:
    """What an engine answered. `finish_reason` is stop, length, error (the engine refused the request) or crash (it died of it);
    token counts are of prompt and reply; `first_token_s` are seconds to the first token, where the engine tells."""

    text: str
    finish_reason: str
    prompt_tokens: int
    tokens: int
    first_token_s: float | None = None


@dataclass(frozen=True)
class EngineSettings:
    """`model` is a Hugging Face id or folder, or the name that a server at `endpoint` (a base URL) knows; `lora_rank` is the
    largest rank of an adapter that will be asked for, or 0; `threads` are the CPU threads of an engine without an accelerator, None
    for all; with `timed`, replies tell the time to their first token, which costs some speed."""

    model: str
    max_model_len: int
    kv_cache_gib: float
    tensor_parallel: int = 1
    lora_rank: int = 0
    threads: int | None = None
    endpoint: str | None = None
    timed: bool = False


@dataclass(frozen=True)
class Sampling:
    """How to draw a reply; temperature 0 is greedy. `schema` is a JSON schema that the engine enforces, or None; `bad_words` are
    never said."""

    max_tokens: int
    temperature: float = 0.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    schema: str | None = None
    bad_words: tuple[str, ...] = ()


def cpu_dtype() -> str:
    """vLLM's dtype for this CPU. An x86 CPU without bf16 instructions computes bf16 at under half the speed of f32."""
    import torch

    has = torch.cpu.get_capabilities()
    slow = has.get("architecture") == "x86_64" and not (has.get("avx512_bf16") or has.get("amx_bf16"))
    return "float32" if slow else "auto"


def environment(threads: int | None = None) -> dict[str, str]:
    """What vLLM wants in its process's environment before it is imported; `threads` as in `EngineSettings`."""
    return {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # Ray decides where an actor runs; binding stacks engines on one core
        "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # Ray sets it to the CPUs that the actor asked for, but an engine computes while the rest waits.
        "OMP_NUM_THREADS": str(threads or os.cpu_count() or 1),
    }


def cpu_options(kv_cache_gib: float) -> dict[str, Any]:
    """vLLM's engine arguments that only a CPU needs; none elsewhere."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return {}
    return {
        "kv_cache_memory_bytes": int(kv_cache_gib * 2**30),
        "enforce_eager": True,  # compiling costs a minute and gains nothing for small models
        "dtype": cpu_dtype(),
    }


class Engine:
    """Raises ModelError if vLLM cannot start; the message has its cause."""

    def __init__(self, settings: EngineSettings) -> None:
        os.environ |= environment(settings.threads)
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        options = cpu_options(settings.kv_cache_gib)
        if settings.lora_rank:
            options |= {"enable_lora": True, "max_lora_rank": settings.lora_rank}
        self.settings = settings
        self._adapter: Any = None
        self._turns = asyncio.Condition()
        self._turn, self._running = False, 0
        try:
            self._llm = AsyncLLM.from_engine_args(
                AsyncEngineArgs(
                    model=models.here(settings.model),
                    max_model_len=settings.max_model_len,
                    tensor_parallel_size=settings.tensor_parallel,
                    disable_log_stats=True,
                    load_format="safetensors",
                    **models.loading(),
                    **options,
                )
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise ModelError(f"vLLM cannot serve {settings.model}: {error}", "The log of the run has vLLM's own words.") from error
        self._tokenizer: Any = self._llm.get_tokenizer()

    def use_adapter(self, path: str) -> None:
        """Serve later requests that ask for it with the LoRA adapter in folder `path`."""
        from vllm.lora.request import LoRARequest

        self._adapter = LoRARequest("adapter", 1, path)

    async def chat(self, messages: Messages, sampling: Sampling, *, opening: str = "", adapter: bool = False) -> Reply:
        """The reply to `messages`, going on from the assistant's `opening`, which is not repeated in it.

        A request that fails is a Reply with finish reason `error` and the cause as its text; only the death of the engine
        itself is raised.
        """
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        ids = self.tokenize(messages, opening)
        params = SamplingParams(
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            min_p=sampling.min_p,
            repetition_penalty=sampling.repetition_penalty,
            bad_words=list(sampling.bad_words),
            output_kind=RequestOutputKind.DELTA if self.settings.timed else RequestOutputKind.FINAL_ONLY,
            structured_outputs=StructuredOutputsParams(json=sampling.schema, disable_any_whitespace=True)
            if sampling.schema
            else None,
        )
        async with self._turn_of(adapter):
            try:
                return await self._generate(TokensPrompt(prompt_token_ids=ids), params, adapter)
            except ValueError as error:
                return Reply(str(error), "error", len(ids), 0)

    @contextlib.asynccontextmanager
    async def _turn_of(self, adapter: bool) -> AsyncIterator[None]:
        """Keep requests with and without the adapter apart: on a CPU, vLLM 0.32 applies it to a whole batch if one row of
        the batch asks for it."""
        async with self._turns:
            await self._turns.wait_for(lambda: self._running == 0 or self._turn == adapter)
            self._turn = adapter
            self._running += 1
        try:
            yield
        finally:
            async with self._turns:
                self._running -= 1
                self._turns.notify_all()

    def tokenize(self, messages: Messages, opening: str = "") -> list[int]:
        """Token ids of the rendered chat up to the answer's opening. The template has put in BOS where the model wants it."""
        text = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return list(self._tokenizer(text + opening, add_special_tokens=False)["input_ids"])

    async def _generate(self, prompt: Any, params: Any, adapter: bool) -> Reply:
        started, first = time.monotonic(), None
        pieces: list[str] = []
        tokens, finish, prompt_tokens = 0, None, 0
        async for output in self._llm.generate(
            prompt, params, request_id=uuid.uuid4().hex, lora_request=self._adapter if adapter else None
        ):
            first = first or time.monotonic() - started
            choice = output.outputs[0]
            pieces.append(choice.text)
            tokens += len(choice.token_ids)
            finish, prompt_tokens = choice.finish_reason, len(output.prompt_token_ids or ())
        return Reply("".join(pieces), finish or "error", prompt_tokens, tokens, first if self.settings.timed else None)

    def shutdown(self) -> None:
        self._llm.shutdown()
