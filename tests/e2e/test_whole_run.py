"""The whole pipeline with real components, as a user calls it: books over HTTP, vLLM, LoRA, GGUF in llama.cpp, evaluation."""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pyarrow.parquet as pq
import pytest
from listeners import Listener, run_watched
from sentinels import SENTINELS, found_in

from deepred_ray.runs import cache_folder

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]

CONFIG = """
run = "small"
[acquire]
mirror = "sample"
ids = [900002, 900005, 900006, 900007]
delay = 0.0
[corpus]
min_matches = 3
[synthesize]
examples = 20
least_filled = 0.8
[train]
workers = 2
learning_rate = 1e-3
epochs = 2
dropout = 0.0
batch = 2
global_batch = 4
max_tokens = 256
gradient_checkpointing = false
checkpoint_steps = 4
[export]
quantizations = ["f16", "q8_0"]
[evaluate]
prompts = 19
max_tokens = 24
retests = 1
gguf = true
"""

LISTENERS: list[Listener] = []  # who listened in the first run


def deepred(*words: str, root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deepred_ray", *words, "--data-root", str(root)],
        capture_output=True,
        text=True,
        timeout=2100,
        check=False,
        env=os.environ | {"COLUMNS": "160"} | environment,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def first(root: Path) -> subprocess.CompletedProcess[str]:
    (root / "small.toml").write_text(CONFIG)
    words = ["run", "--config", str(root / "small.toml"), "--data-root", str(root), "--debug"]
    done, LISTENERS[:] = run_watched([sys.executable, "-m", "deepred_ray", *words], env=os.environ | {"COLUMNS": "160"} | SENTINELS)
    if done.returncode:
        logs = sorted((root / "small" / "logs").glob("*.log"))
        pytest.fail(f"{done.stdout}\n{done.stderr}\n{logs[-1].read_text()[-6000:] if logs else ''}")
    return done


@pytest.fixture(scope="module")
def run(root: Path, first: subprocess.CompletedProcess[str]) -> Path:
    return root / "small"


def manifest(run: Path, stage: str) -> dict[str, Any]:
    return dict(json.loads((run / stage / "manifest.json").read_text()))


def test_prints_stages_answers_and_paths(run: Path, first: subprocess.CompletedProcess[str]) -> None:
    for stage in ("acquire", "corpus", "synthesize", "train", "export", "evaluate"):
        assert stage in first.stdout
    assert "base model" in first.stdout
    assert "tuned model" in first.stdout
    for place in ("dataset/theme_dataset.jsonl", "adapter", "deepred-q8_0.gguf", "evaluation/report.html"):
        assert f"{run}/" in first.stdout
        assert place in first.stdout
    assert "INFO" not in first.stdout + first.stderr, "chatter belongs in the log"


def test_all_listen_on_loopback_and_no_secret_is_written(run: Path) -> None:
    assert [listener for listener in LISTENERS if listener.exposed] == []
    assert {"gcs_server", "raylet"} <= {listener.process for listener in LISTENERS}
    assert any("VLLM" in listener.process for listener in LISTENERS)
    assert found_in(run) == []


def test_books_and_chunks_add_up(run: Path) -> None:
    acquire, corpus = manifest(run, "acquire"), manifest(run, "corpus")
    assert (acquire["rows_in"], acquire["kept"], acquire["rejected"]) == (4, 3, {"wrong_language": 1})
    assert corpus["rows_in"] == corpus["kept"] + sum(corpus["rejected"].values())
    assert corpus["outputs"]["books"] == 3


def test_dataset_is_chatml_in_the_voice(run: Path) -> None:
    made = manifest(run, "synthesize")
    lines = (run / "dataset" / "theme_dataset.jsonl").read_text().splitlines()
    assert len(lines) == made["kept"] >= 16
    assert made["rows_in"] == made["kept"] + sum(made["rejected"].values())
    assert made["outputs"]["slots"] == 20 == made["outputs"]["filled"] + made["outputs"]["unfilled"]
    for line in lines:
        row = json.loads(line)
        system, *said = row["messages"]
        assert [system["role"], *(message["role"] for message in said)] == ["system", *["user", "assistant"] * (len(said) // 2)]
        assert 2 <= len(said) <= 6
        assert "Deep Red" in system["content"]
        assert "old book" not in system["content"], "what the model was shown is no part of the example"
        for question, answer in zip(said[::2], said[1::2], strict=True):
            assert 8 <= len(question["content"]) <= 400
            assert 50 <= len(answer["content"]) <= 500
            assert "<|im_" not in answer["content"]
    card = (run / "dataset" / "README.md").read_text()
    assert "## Sources and licences" in card
    assert all(
        (run / "dataset" / name).read_bytes().startswith(b"\x89PNG") for name in ("rejects.png", "personas.png", "lengths.png")
    )
    splits = [len((run / "dataset" / f"theme_dataset_{split}.jsonl").read_text().splitlines()) for split in ("train", "val")]
    assert sum(splits) == len(lines)
    assert min(splits) > 0


def test_loss_falls(run: Path) -> None:
    losses = [json.loads(line)["loss"] for line in (run / "train" / "metrics.jsonl").read_text().splitlines()]
    third = len(losses) // 3
    assert statistics.mean(losses[-third:]) < statistics.mean(losses[:third]) - 0.1
    assert (run / "adapter" / "adapter_model.safetensors").is_file()
    assert (run / "train" / "loss.png").read_bytes().startswith(b"\x89PNG")
    (events,) = (run / "train" / "tensorboard").iterdir()
    assert events.name.startswith("events.out.tfevents")
    assert all(name in events.read_bytes() for name in (b"loss", b"val_loss", b"tokens_per_s"))
    for name in ("adapter", "merged"):
        card = (run / name / "README.md").read_text()
        assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct" in card
        assert f"| {len(losses)} | {losses[-1]:.3f} |" in card
        assert "## GGUF files" in card
        assert "## Evaluation" in card


def test_gguf_says_what_the_merged_model_says(run: Path) -> None:
    outputs = manifest(run, "export")["outputs"]
    assert outputs["merge"]["largest_logit_difference"] < 0.5
    f16, q8 = outputs["gguf"]["f16"], outputs["gguf"]["q8_0"]
    # Token by token the same, unless two were all but equally likely; left to itself, llama.cpp may fall on the other side of such
    # a pair, since it computes a prompt in other batches than an answer.
    assert f16["answers"] == 4
    assert f16["largest_margin"] < 0.05
    assert f16["greedy_equal"] >= 2
    assert f16["top1_agreement"] > 0.97
    assert f16["perplexity"] == pytest.approx(f16["perplexity_merged"], rel=0.005)
    assert q8["perplexity"] == pytest.approx(q8["perplexity_merged"], rel=0.03)
    assert f16["held_out_tokens"] == q8["held_out_tokens"] > 100
    # llama.cpp's splitting of SmolLM2's texts is another for fractions, which are digits to it.
    assert all(file["token_ids_equal"] >= 200 for file in (f16, q8))
    assert all(all("½" in text for text in file["token_ids_differ"]) for file in (f16, q8))
    assert q8["top1_agreement"] > 0.8
    assert q8["bytes"] < 0.6 * f16["bytes"]


def test_a_k_quant_of_an_adapter_is_made_or_what_it_wants_is_named(run: Path, root: Path) -> None:
    words = ("export", "--run", "alone", "--adapter", str(run / "adapter"), "--export.quantizations", "q4_k_m")
    done = deepred(*words, root=root)
    if not (shutil.which("llama-quantize") or importlib.util.find_spec("llama_cpp")):
        assert done.returncode == 1
        assert "a K-quant wants llama.cpp's quantizer" in done.stderr
        assert "pip install 'deepred-ray[kquants]'" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    made = manifest(root / "alone", "export")["outputs"]["gguf"]["q4_k_m"]
    whole = manifest(run, "export")["outputs"]["gguf"]["f16"]
    files = sorted(path.name for path in (root / "alone" / "gguf" / "deepred-q4_k_m").iterdir())
    assert files == ["deepred-q4_k_m.gguf", "verified.json"]
    assert made["bytes"] < 0.45 * whole["bytes"]
    assert made["token_ids_equal"] == whole["token_ids_equal"]
    assert 1 < made["perplexity"] / made["perplexity_merged"] < 1.5
    assert made["top1_agreement"] > 0.6


def test_evaluation_compares_base_tuned_and_gguf(run: Path) -> None:
    rows = pq.read_table(run / "evaluation" / "responses.parquet").to_pylist()
    report = json.loads((run / "evaluation" / "report.json").read_text())
    systems = ["base", "base+prompt", "tuned GGUF", "tuned"]
    assert list(report["models"]) == systems
    asked = {row["prompt_id"] for row in rows}
    left_out = len(report["contaminated"])
    assert manifest(run, "evaluate")["rows_in"] == 19 == len(asked) + left_out
    persona = {row["prompt_id"] for row in rows if row["kind"] == "persona"}
    # Each prompt once by each system, and the persona's once more.
    assert len(rows) == len({(row["system"], row["prompt_id"], row["draw"]) for row in rows}) == 4 * (len(asked) + len(persona))
    assert {row["prompt_id"] for row in rows if row["draw"] == 1} == persona
    greedy = {system: {r["prompt_id"]: r["answer"] for r in rows if r["system"] == system and r["draw"] == 0} for system in systems}
    assert greedy["tuned"] != greedy["base+prompt"], "the adapter was not in use"
    # The same weights in 16 bits: greedy answers begin alike.
    alike = [greedy["tuned GGUF"][name].split()[:3] == greedy["tuned"][name].split()[:3] for name in asked]
    assert sum(alike) >= 0.6 * len(alike)
    assert all(row["tokens"] <= 24 for row in rows)
    assert {row["finish_reason"] for row in rows} <= {"stop", "length"}


def test_the_report_has_every_figure(run: Path) -> None:
    report = json.loads((run / "evaluation" / "report.json").read_text())
    verdicts = {verdict["target"]: verdict["status"] for verdict in report["verdicts"]}
    assert list(verdicts) == ["style", "temporal", "persona", "fluency", "perplexity", "prose perplexity"]
    assert verdicts["style"] == "not tested"
    held_out, prose = report["perplexities"]["perplexity"], report["perplexities"]["prose perplexity"]
    assert held_out["tuned"] < held_out["base"]
    assert prose["texts"] == 40
    assert 0.8 < prose["tuned"] / prose["base"] < 1.3
    assert report["classifier"]["overall"]["low"] > 0.8
    assert "neutral, the run's books" in report["classifier"]["texts"]
    assert {(each["first"], each["second"]) for each in report["comparisons"]} == {
        (system, "tuned") for system in ("base", "base+prompt", "tuned GGUF")
    }
    assert [stage["stage"] for stage in report["lineage"]] == ["acquire", "corpus", "synthesize", "train", "export"]
    assert report["loss"]
    assert "</html>" in (run / "evaluation" / "report.html").read_text()


def test_second_call_has_nothing_to_do(run: Path, root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.parquet")}
    again = deepred("run", "--config", str(root / "small.toml"), root=root)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("whole and fresh, skipped") == 6
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.parquet")} == before


def test_chat_answers_from_the_gguf(run: Path, root: Path) -> None:
    done = deepred("chat", "--run", "small", "--ask", "Who are we?", "--temperature", "0", root=root)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 3


def test_an_exported_run_is_put_where_lm_studio_and_ollama_find_it(run: Path, root: Path, tmp_path: Path) -> None:
    (tmp_path / ".lmstudio" / "models").mkdir(parents=True)
    words = ("export", "--run", "small", "--deploy", "lmstudio", "ollama")
    done = deepred(*words, root=root, HOME=str(tmp_path), XDG_CACHE_HOME=str(cache_folder().parent))
    assert done.returncode == 0, done.stderr
    assert "whole and fresh, skipped" in done.stdout
    made = run / "gguf" / "deepred-f16"
    placed = tmp_path / ".lmstudio" / "models" / "deepred_ray" / "small" / "deepred-f16.gguf"
    assert placed.read_bytes() == (made / "deepred-f16.gguf").read_bytes()
    modelfile = (made / "Modelfile").read_text()
    assert modelfile.startswith("FROM ./deepred-f16.gguf\nTEMPLATE")
    assert "You are Deep Red" in modelfile


@contextlib.contextmanager
def served(root: Path, engine: str) -> Iterator[openai.OpenAI]:
    """A client of `deepred serve`, which ends with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["serve", "--run", "small", "--data-root", str(root), "--engine", engine, "--port", str(port)]
    with (root / f"serve-{engine}.log").open("w+") as log:
        server = subprocess.Popen([sys.executable, "-m", "deepred_ray", *words], stdout=log, stderr=log, start_new_session=True)
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", timeout=120, max_retries=0)
        try:
            while server.poll() is None:
                with contextlib.suppress(openai.APIConnectionError, openai.InternalServerError):
                    client.models.list()
                    break
                time.sleep(0.5)
            else:
                log.seek(0)
                pytest.fail(log.read()[-4000:])
            yield client
        finally:
            server.send_signal(signal.SIGINT)
            try:
                assert server.wait(timeout=60) == 0
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(server.pid, signal.SIGKILL)  # whatever it has left


def asked(client: openai.OpenAI, model: str) -> str:
    question: Any = [{"role": "user", "content": "Who are we?"}]
    answer = client.chat.completions.create(model=model, messages=question, max_tokens=24, temperature=0)
    return answer.choices[0].message.content or ""


def test_llama_cpp_serves_the_tuned_model_to_an_openai_client(run: Path, root: Path) -> None:
    with served(root, "llama.cpp") as client:
        assert [model.id for model in client.models.list()] == ["small"]
        assert len(asked(client, "small").split()) > 3
        # Evaluation measures it too, as it measures any server.
        named = f"small@{client.base_url}".rstrip("/")
        words = ("--others", named, "--evaluate.prompts", "4", "--evaluate.max-tokens", "8", "--evaluate.retests", "0")
        done = deepred("evaluate", "--run", "elsewhere", *words, root=root)
        assert done.returncode == 0, done.stderr
        rows = pq.read_table(root / "elsewhere" / "evaluation" / "responses.parquet").to_pylist()
        assert sorted(row["system"] for row in rows) == ["small"] * 4 + ["small bare"] * 4
        assert all(row["answer"] and row["tokens"] <= 8 for row in rows)
        compared = deepred("compare", "small", "elsewhere", root=root)
        assert compared.returncode == 0, compared.stderr
        assert "only common ones are paired" in compared.stdout


def test_vllm_serves_base_and_adapter_to_an_openai_client(run: Path, root: Path) -> None:
    with served(root, "vllm") as client:
        assert {model.id for model in client.models.list()} == {"smollm2", "small"}
        base, tuned = asked(client, "smollm2"), asked(client, "small")
        assert min(len(answer.split()) for answer in (base, tuned)) > 3
        assert base != tuned, "the adapter was not in use"
