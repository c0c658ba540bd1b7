"""Models and tables that would run code when read: each is refused, or read without that code. Every trap writes a file."""

import ast
import contextlib
import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import write_model

import deepred_ray
from deepred_ray import models
from deepred_ray.config import Config
from deepred_ray.errors import DeepredError, InputError, ModelError
from deepred_ray.pipeline import inputs_of
from deepred_ray.runs import Run
from deepred_ray.stages import local, sources
from deepred_ray.stages.export import forget_code, load_adapter
from deepred_ray.stages.tokens import load_tokenizer
from deepred_ray.theme import Theme


@pytest.fixture
def sprung(tmp_path: Path) -> Path:
    """The file that a trap writes."""
    return tmp_path / "sprung"


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def with_code(folder: Path, sprung: Path, **values: Any) -> Path:
    """The model with a module of its own, which its files name for everything."""
    (folder / "evil.py").write_text(f"import pathlib\npathlib.Path({str(sprung)!r}).touch()\n")
    names = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": ["evil.Tokenizer", None]}
    for name in ("config.json", "tokenizer_config.json"):
        edit(folder / name, auto_map=names)
    edit(folder / "config.json", **values)
    return folder


def test_the_traps_work(tmp_path: Path, model: Path, sprung: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nothing below would show anything."""
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists()
    sprung.unlink()
    monkeypatch.setenv(models.TRUST, "1")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    with pytest.raises(AttributeError):
        models.load_config(str(with_code(model, sprung, model_type="evil")))
    assert sprung.exists()


def test_a_model_that_takes_code_of_its_own_is_refused(model: Path, sprung: Path) -> None:
    with pytest.raises(ModelError, match="code of its own, which is not run") as refused:
        models.resolve(str(with_code(model, sprung, model_type="evil")))
    assert "--trust-remote-code" in refused.value.cure
    assert not sprung.exists()


def test_code_beside_a_known_kind_of_model_is_not_run(model: Path, sprung: Path, tmp_path: Path) -> None:
    name = models.resolve(str(with_code(model, sprung)))
    assert load_tokenizer(name).chat_template
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(name, **models.weights())
    # What is exported does not tell where that code is: llama.cpp's converter trusts it.
    loaded.save_pretrained(tmp_path / "merged")
    load_tokenizer(name).save_pretrained(tmp_path / "merged")
    forget_code(tmp_path / "merged")
    assert not [file for file in (tmp_path / "merged").iterdir() if "evil" in file.read_text("utf-8", "replace")]
    assert not sprung.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.ckpt"])
def test_pickled_weights_are_refused(model: Path, sprung: Path, name: str) -> None:
    (model / "model.safetensors").unlink()
    (model / name).write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(ModelError, match=f"only as pickle \\({name}\\)"):
        models.resolve(str(model))
    assert not sprung.exists()


def test_pickled_weights_are_not_read_by_those_who_load(model: Path, sprung: Path) -> None:
    """A model that comes from a hub is no folder that `resolve` looks into."""
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(OSError, match="safetensors"):
        load_adapter(str(model), str(model))
    assert not sprung.exists()


def test_safetensors_are_taken_where_pickled_weights_lie_beside(model: Path, sprung: Path) -> None:
    from transformers import AutoModelForCausalLM

    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(sprung)))
    assert AutoModelForCausalLM.from_pretrained(models.resolve(str(model)), **models.weights()).num_parameters() > 10_000
    assert not sprung.exists()


def test_an_adapter_with_pickled_weights_is_refused(model: Path, sprung: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Trap(sprung)))
    config = Config.model_validate({"model": str(model), "data_root": str(tmp_path), "export": {"adapter": str(adapter)}})
    with pytest.raises(InputError, match=r"adapter_model\.safetensors"):
        inputs_of(Run(config.root, config.run), config, "export")
    assert not sprung.exists()


REACHING = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('true') }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ raise_exception.__globals__.os }}",
    "{% set x = messages.append('more') %}",
]


@pytest.mark.parametrize("template", REACHING)
def test_a_chat_template_reaches_no_python(tmp_path: Path, template: str) -> None:
    from jinja2.exceptions import SecurityError

    tokenizer = load_tokenizer(str(write_model(tmp_path / "model", template)))
    with pytest.raises(SecurityError):
        tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)


def test_every_load_is_told_what_may_run() -> None:
    """Each call of a `from_pretrained` that could run code has what `models` says; what has not, reads our own GGUF file, an
    adapter's weights or its JSON."""
    told = {"loading", "weights"}
    without = set()
    calls = 0
    for path in Path(deepred_ray.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "from_pretrained":
                calls += 1
                spread = [word.value for word in node.keywords if word.arg is None]
                if not any(isinstance(value, ast.Call) and ast.unparse(value.func).split(".")[-1] in told for value in spread):
                    without.add((path.name, ast.unparse(node.func.value)))
    own = {("models.py", "AutoTokenizer"), ("models.py", "AutoModelForCausalLM")}
    peft = {("export.py", "PeftModel"), ("fluency.py", "PeftModel"), ("lora.py", "PeftModel"), ("asking.py", "PeftConfig")}
    assert without == own | peft
    assert calls > 10


# --- tables


@pytest.fixture
def pickled_column(sprung: Path) -> pa.Array:
    from ray.data._internal.object_extensions.arrow import ArrowPythonObjectType

    kind = ArrowPythonObjectType()
    return pa.ExtensionArray.from_storage(kind, pa.array([pickle.dumps(Trap(sprung))], kind.storage_type))


def test_a_pickled_column_runs_code_when_pyarrow_reads_it(tmp_path: Path, pickled_column: pa.Array, sprung: Path) -> None:
    """If it no longer does, `refuse_extensions` can go."""
    pq.write_table(pa.table({"text": pickled_column}), tmp_path / "trap.parquet")
    pq.read_table(tmp_path / "trap.parquet").to_pylist()
    assert sprung.exists()


@pytest.mark.parametrize("nested", [False, True])
def test_a_pickled_column_of_books_is_refused(tmp_path: Path, pickled_column: pa.Array, sprung: Path, nested: bool) -> None:
    text = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), pickled_column) if nested else pickled_column
    pq.write_table(pa.table({"id": ["1"], "title": ["One"], "author": ["One"], "text": text}), tmp_path / "trap.parquet")
    with pytest.raises(InputError, match="text: a column of an extension type"):
        local.local_files((str(tmp_path / "trap.parquet"),))
    with pytest.raises(InputError, match="text: a column of an extension type"):
        sources.import_passages(Run(str(tmp_path), "test"), [str(tmp_path / "trap.parquet")], Theme.find("deepred"))
    assert not sprung.exists()


def test_a_pickled_column_in_a_run_is_not_unpickled(tmp_path: Path, pickled_column: pa.Array, sprung: Path) -> None:
    folder = Run(str(tmp_path), "test").table("chunks")
    (folder / "0.parquet").write_bytes(b"")  # makes the folder
    pq.write_table(pa.table({"text": pickled_column}), (folder / "0.parquet").path)
    with contextlib.suppress(DeepredError):
        folder.read_table(pa.schema([("text", pa.string())])).to_pylist()
    assert not sprung.exists()
