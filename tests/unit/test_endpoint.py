"""A server with an OpenAI-compatible API as the engine: a real one on loopback, whose every answer is laid down."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from deepred_ray.endpoint import KEY, RETRIES, EndpointEngine
from deepred_ray.engine import EngineSettings, Reply, Sampling
from deepred_ray.errors import ModelError

MODEL = "qwen2.5-7b-instruct"
MESSAGES = [{"role": "system", "content": "You keep the pumps."}, {"role": "user", "content": "Are they warm?"}]
TEXT = "They are warm, comrade — all of them."
HURRY = {"retry-after-ms": "1"}


@dataclass
class Served:
    """What a server answers, in this order, the last one again and again; and what it was asked."""

    url: str = ""
    models: list[str] = field(default_factory=lambda: [MODEL])
    page: Any = None  # instead of the list of models
    key: str = ""
    answers: list[tuple[int, Any, dict[str, str]]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)

    def take(self) -> tuple[int, Any, dict[str, str]]:
        if not self.answers:
            return 200, completion(TEXT), {}
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def completion(text: str | None, finish_reason: str | None = "stop", *, usage: bool = True) -> dict[str, Any]:
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}],
    } | ({"usage": {"prompt_tokens": 21, "completion_tokens": 9, "total_tokens": 30}} if usage else {})


def pieces(text: str, *, usage: bool = True) -> bytes:
    """The same as a stream: a word an event, the figures in one without a choice."""
    deltas: list[dict[str, Any]] = [{"role": "assistant"}, *({"content": part} for part in text.replace(" ", " \0").split("\0"))]
    events: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}], "usage": None} for delta in deltas
    ]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None})
    if usage:
        events.append({"choices": [], "usage": {"prompt_tokens": 21, "completion_tokens": 9, "total_tokens": 30}})
    head = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": MODEL}
    return b"".join(b"data: %s\n\n" % json.dumps(head | event).encode() for event in events) + b"data: [DONE]\n\n"


@contextlib.contextmanager
def serve() -> Iterator[Served]:
    served = Served()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.note()
            if self.refused():
                return
            if self.path != "/v1/models":
                self.answer(404, {"error": {"message": "no such path"}}, {})
                return
            listing = {"object": "list", "data": [{"id": name, "object": "model"} for name in served.models]}
            self.answer(200, listing if served.page is None else served.page, {})

        def do_POST(self) -> None:
            self.note()
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.refused():
                return
            served.requests.append(body)
            self.answer(*served.take())

        def note(self) -> None:
            served.paths.append(f"{self.command} {self.path}")
            served.keys.append(self.headers["Authorization"])

        def refused(self) -> bool:
            refuse = bool(served.key) and self.headers["Authorization"] != f"Bearer {served.key}"
            if refuse:
                self.answer(401, {"error": {"message": "no such key"}}, {})
            return refuse

        def answer(self, status: int, body: Any, headers: dict[str, str]) -> None:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            kind = "text/event-stream" if raw.startswith(b"data:") else "text/html" if raw.startswith(b"<") else "application/json"
            for name, value in {"Content-Type": kind, "Content-Length": str(len(raw)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.delenv(KEY, raising=False)
    with serve() as served:
        yield served


def settings(url: str, **changes: Any) -> EngineSettings:
    return EngineSettings(**({"model": MODEL, "max_model_len": 512, "kv_cache_gib": 0.1, "endpoint": url} | changes))


async def end(engine: EndpointEngine) -> None:
    """Shut down, and wait until its connections are closed."""
    engine.shutdown()
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task is not asyncio.current_task()))


def ask(server: Served, sampling: Sampling | None = None, *, opening: str = "", **changes: Any) -> Reply:
    async def scenario() -> Reply:
        engine = EndpointEngine(settings(server.url, **changes))
        try:
            return await engine.chat(MESSAGES, sampling or Sampling(64), opening=opening)
        finally:
            await end(engine)

    return asyncio.run(scenario())


# --- finding the server


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
def test_the_address_may_end_with_v1_or_not(server: Served, ending: str) -> None:
    server.url += ending
    assert ask(server) == Reply(TEXT, "stop", 21, 9)
    assert server.paths == ["GET /v1/models", "POST /v1/chat/completions"]


@pytest.mark.parametrize(("models", "said"), [(["a/b", "c"], "'a/b', 'c'"), ([], "none is loaded")])
def test_a_wrong_model_names_those_that_are_served(server: Served, models: list[str], said: str) -> None:
    server.models = models
    with pytest.raises(ModelError, match=f"does not have model '{MODEL}'") as caught:
        EndpointEngine(settings(server.url))
    assert caught.value.cure == f"Name one that it has with --synthesis-model: {said}."


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        # Bound and not listening: nobody else gets the port, and whoever calls is refused.
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ModelError, match=f"no OpenAI-compatible server answers at {url}/v1") as caught:
            EndpointEngine(settings(url))
    assert "--synthesize.endpoint" in caught.value.cure


@pytest.mark.parametrize("page", [None, b"<html>Hello</html>", b"not JSON", [MODEL], {"data": [MODEL]}, 3])
def test_another_kind_of_server(server: Served, page: Any) -> None:
    server.page = page
    server.url += "/elsewhere" if page is None else ""
    with pytest.raises(ModelError, match=f"no OpenAI-compatible server answers at {server.url}/v1") as caught:
        EndpointEngine(settings(server.url))
    assert "--synthesize.endpoint" in caught.value.cure


# --- the key


def test_the_key_comes_from_the_environment_alone(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    server.key = "s3cret"
    monkeypatch.setenv(KEY, "s3cret")
    assert ask(server).text == TEXT
    assert server.keys == ["Bearer s3cret"] * 2


@pytest.mark.parametrize("key", [None, "", "wrong"])
def test_a_key_that_is_refused_names_where_the_right_one_goes(
    server: Served, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    server.key = "s3cret"
    if key is not None:
        monkeypatch.setenv(KEY, key)
    with pytest.raises(ModelError, match=f"the server at {server.url}/v1 refuses the key") as caught:
        EndpointEngine(settings(server.url))
    assert f"${KEY}" in caught.value.cure
    assert "wrong" not in str(caught.value)
    assert server.paths == ["GET /v1/models"]


# --- what is asked


def test_a_request_has_all_of_the_sampling(server: Served) -> None:
    sampling = Sampling(64, temperature=0.8, min_p=0.1, repetition_penalty=1.1, bad_words=("I", "me"))
    ask(server, sampling)
    assert server.requests == [
        {
            "model": MODEL,
            "messages": MESSAGES,
            "max_tokens": 64,
            "temperature": 0.8,
            "min_p": 0.1,
            "repetition_penalty": 1.1,
            "bad_words": ["I", "me"],
        }
    ]


def test_a_schema_goes_out_as_the_form_of_the_response(server: Served) -> None:
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
    ask(server, Sampling(64, schema=json.dumps(schema)))
    (request,) = server.requests
    assert request["response_format"]["type"] == "json_schema"
    form = request["response_format"]["json_schema"]
    assert (form["schema"], form["strict"]) == (schema, True)
    assert form["name"]
    assert "bad_words" not in request


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("repeated", [False, True])
def test_an_opening_is_gone_on_from_and_never_repeated(server: Served, timed: bool, repeated: bool) -> None:
    opening = "Comrade, we say that"
    text = f"{opening} they are warm." if repeated else " they are warm."
    server.answers = [(200, pieces(text) if timed else completion(text), {})]
    assert ask(server, opening=opening, timed=timed).text == " they are warm."
    (request,) = server.requests
    assert request["messages"] == [*MESSAGES, {"role": "assistant", "content": opening}]
    assert (request["add_generation_prompt"], request["continue_final_message"]) == (False, True)
    assert MESSAGES[-1]["role"] == "user"


# --- what is answered


@pytest.mark.parametrize(
    ("body", "reply"),
    [
        (completion("So", "length"), Reply("So", "length", 21, 9)),
        (completion(None), Reply("", "stop", 21, 9)),
        (completion("So", None), Reply("So", "error", 21, 9)),
        (completion("So", usage=False), Reply("So", "stop", 0, 0)),
    ],
)
def test_replies(server: Served, body: dict[str, Any], reply: Reply) -> None:
    server.answers = [(200, body, {})]
    assert ask(server) == reply


def test_a_stream_tells_when_it_began_and_the_same_text(server: Served) -> None:
    server.answers = [(200, pieces(TEXT), {})]
    reply = ask(server, timed=True)
    assert (reply.text, reply.finish_reason, reply.prompt_tokens, reply.tokens) == (TEXT, "stop", 21, 9)
    assert reply.first_token_s is not None
    assert 0 < reply.first_token_s < 60
    (request,) = server.requests
    assert (request["stream"], request["stream_options"]) == (True, {"include_usage": True})


def test_a_stream_without_figures_counts_its_pieces(server: Served) -> None:
    server.answers = [(200, pieces("one two three", usage=False), {})]
    reply = ask(server, timed=True)
    assert (reply.text, reply.prompt_tokens, reply.tokens) == ("one two three", 0, 3)


def test_a_stream_that_says_nothing_has_no_first_token(server: Served) -> None:
    server.answers = [(200, pieces(""), {})]
    assert ask(server, timed=True) == Reply("", "stop", 21, 9, None)


# --- a server in trouble


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(server: Served, status: int) -> None:
    server.answers = [(status, {"error": {"message": "busy"}}, HURRY)] * 3 + [(200, completion(TEXT), {})]
    assert ask(server) == Reply(TEXT, "stop", 21, 9)
    assert server.paths.count("POST /v1/chat/completions") == 4


def test_a_server_that_stays_busy_is_given_up(server: Served) -> None:
    server.answers = [(503, {"error": {"message": "all slots are taken"}}, HURRY)]
    with pytest.raises(ModelError, match=f"the server at {server.url}/v1 failed: .*all slots are taken"):
        ask(server)
    assert len(server.requests) == RETRIES + 1


@pytest.mark.parametrize("timed", [False, True])
def test_a_refused_request_is_a_reply_with_the_cause(server: Served, timed: bool) -> None:
    server.answers = [(400, {"error": {"message": "the prompt is longer than 512 tokens"}}, {})]
    reply = ask(server, timed=timed)
    assert (reply.finish_reason, reply.prompt_tokens, reply.tokens) == ("error", 0, 0)
    assert "longer than 512 tokens" in reply.text
    assert len(server.requests) == 1


def test_one_engine_answers_many_at_once(server: Served) -> None:
    async def scenario() -> list[Reply]:
        engine = EndpointEngine(settings(server.url))
        replies = await asyncio.gather(*(engine.chat(MESSAGES, Sampling(64)) for _ in range(12)))
        await end(engine)
        return replies

    assert asyncio.run(scenario()) == [Reply(TEXT, "stop", 21, 9)] * 12


def test_an_engine_without_requests_ends_in_order(server: Served) -> None:
    EndpointEngine(settings(server.url)).shutdown()
