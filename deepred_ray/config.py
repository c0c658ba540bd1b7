"""The one configuration of a run: typed, frozen, one section a stage, read from TOML and overridden on the command line.

Settings are of three kinds, marked on each field:
  identity    what a row is; changing one on an existing run is refused
  growth      how many; raising one extends an existing run, and nothing is made again
  operational how it is done; never asked about
"""

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from deepred_ray.errors import ConfigError

Kind = Literal["identity", "growth", "operational"]
Quantization = Literal[
    "f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q4_k_m", "q4_k_s", "q3_k_l", "q3_k_m", "q3_k_s", "q2_k"
]


SECRET = re.compile(
    r"://[^/?#\s]*@"  # user:password@host
    r"|(?i:[?&][\w.%-]*(?:key|token|secret|password|passwd|signature|credential)[\w.%-]*=)"
    r"|\b(?:hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|A[KS]IA[A-Z0-9]{16})\b"  # tokens of Hugging Face, OpenAI and AWS
)


def identity(default: Any, **bounds: Any) -> Any:
    return Field(default, json_schema_extra={"kind": "identity"}, **bounds)


def growth(default: Any, **bounds: Any) -> Any:
    return Field(default, json_schema_extra={"kind": "growth"}, **bounds)


def operational(default: Any, **bounds: Any) -> Any:
    return Field(default, json_schema_extra={"kind": "operational"}, **bounds)


def short(*flags: str) -> Any:
    """A flag without its section's prefix, for settings that are used every day."""
    return tyro.conf.arg(aliases=flags)


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def of_kind(self, kind: Kind) -> dict[str, Any]:
        """The JSON values of this section's fields of one kind."""
        values = self.model_dump(mode="json")
        return {
            name: values[name]
            for name, field in type(self).model_fields.items()
            if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("kind") == kind
        }


class Resources(Section):
    """What each unit of a stage's work (a task, an engine, a training worker) asks of the node that Ray puts it on."""

    cpus: float = operational(1.0, ge=0)
    """CPUs; Ray counts them, and holds nobody to them."""
    gpus: float | None = operational(None, ge=0)
    """Accelerators, or a share of one below 1. Default: what the work can use where the cluster has any (an engine
    `tensor_parallel`, a training worker 1), else none."""
    memory_gib: float = operational(0.0, ge=0)
    """Memory in GiB that the node must have to spare. Default: whatever there is."""
    custom: dict[str, float] = operational({})
    """Ray's custom resources by name, such as `text = 1` for nodes started with --resources='{"text": 8}'."""

    @field_validator("gpus")
    @classmethod
    def a_share_or_whole(cls, value: float | None) -> float | None:
        if value is not None and value > 1 and not value.is_integer():
            raise ValueError("a share of a GPU is below 1; more are whole")
        return value


class AcquireConfig(Section):
    """Fetch books from a Gutenberg mirror, or read them from local files."""

    mirror: Annotated[str, short("--mirror")] = operational("https://gutenberg.pglaf.org")
    """Base URL of a mirror. `sample` serves the books that ship with the package from a loopback server of our own."""
    selection: Literal["ids", "priority", "subjects", "catalogue"] = identity("priority")
    """Which books. `ids`: those named below. `priority`: the works on the theme's list. `subjects`: what the mirror's catalogue
    has for the subjects below, up to `max_books`. `catalogue`, the extended corpus: first the priority works, then the theme's
    categories up to their targets, then the subjects in turn, up to `max_books`. `deepred acquire --plan` shows the choice and
    why, and fetches no book."""
    ids: Annotated[tuple[int, ...], short("--ids")] = growth(())
    """Gutenberg ids; naming any of them means selection `ids`."""
    subjects: Annotated[tuple[str, ...], short("--subjects")] = identity(())
    """Headings to look for in the catalogue's subjects and bookshelves, as whole words: Chess finds `Chess -- Openings`, and
    'Mars (Planet)' finds `Mars (Planet) -- Fiction`. They take the place of the theme's own subjects; named without another
    selection, they mean selection `subjects`."""
    max_per_subject: Annotated[int | None, short("--max-per-subject")] = growth(None, ge=1)
    """Take at most so many books for each of the subjects (the categories have targets of their own). Default: the subjects take
    turns, one book each, until there are `max_books`."""
    max_books: int = growth(500, ge=1)
    """Size of the corpus for the selections `subjects` and `catalogue`. A larger one later keeps the books that are there."""
    input: Annotated[tuple[str, ...], short("--input")] = identity(())
    """Read books from these .txt, .jsonl or .parquet files or folders instead of a mirror."""
    delay: Annotated[float, short("--delay")] = operational(2.0, ge=0)
    """Seconds between two requests to the same host. Project Gutenberg asks for 2; use less only on a mirror of your own."""
    contact: str = operational("")
    """An e-mail address or URL that the User-Agent header tells the mirror's operator, who can then write instead of blocking."""
    force_main_site: bool = operational(False)
    """Ask www.gutenberg.org itself, if `mirror` names it. It is meant for people and blocks the addresses of programs, yours
    with them: use a mirror, unless Project Gutenberg allowed you this."""
    retries: int = operational(12, ge=0)
    """Tries again after a busy, broken or wrong answer, each after a longer wait; a book that fails three of them goes behind
    all others and has the rest in later rounds."""
    timeout: float = operational(30.0, gt=0)
    """Seconds to wait for an answer."""
    language: str = identity("en")
    """ISO 639-1 code of the books to keep, judged by their body."""
    keep_undatable: bool = identity(False)
    """Keep works that nothing dates: no year in them, in the input or in the theme's list, and no author known to have died
    before the cutoff. For inputs that you know to be old enough; else they are rejects."""
    resources: Resources = operational(Resources(cpus=0.5))
    """Of each task that reads fetched books. Fetching itself is one actor, since the mirror's pauses are for all nodes together."""

    @model_validator(mode="before")
    @classmethod
    def select_by_what_is_named(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if values.get("ids"):
            return values | {"selection": "ids"}
        if values.get("subjects") and values.get("selection", "priority") == "priority":
            return values | {"selection": "subjects"}
        return values


class CorpusConfig(Section):
    """Cut the books into chunks, score them by the theme's lexicon and keep the passages."""

    method: Literal["paragraph", "overlap"] = identity("paragraph")
    """Gather whole paragraphs, or slide overlapping windows of whole sentences."""
    size: int = identity(1024, ge=64)
    """Largest chunk, in characters, or in tokens if a tokenizer is named."""
    overlap: int = identity(128, ge=0)
    """What two neighbouring windows share (method `overlap`), in the same unit."""
    minimum: int = identity(256, ge=1)
    """Smallest chunk that can be a passage, in the same unit."""
    tokenizer: str | None = identity(None)
    """Measure the three sizes in the tokens of this model (a Hugging Face id, a folder or `smollm2`) instead of characters."""
    min_score: Annotated[float, short("--min-score")] = identity(1.2, ge=0)
    """Score that a passage needs: how densely it holds how many rare terms of how many themes. Higher keeps less;
    `deepred thresholds RUN` shows how much."""
    min_matches: Annotated[int | None, short("--min-matches")] = identity(None, ge=1)
    """Decide by the plan's rule instead of the score: distinct keyword hits, summed over themes. The plan's 3 keeps four
    chunks of five."""
    near_duplicates: float = identity(0.5, gt=0, le=1)
    """Similarity (Jaccard, of three-word runs) from which a passage is a twin of an earlier one, and dropped. 1 drops only
    what differs in no word."""
    remembered: int = operational(1_000_000, ge=1)
    """Passages that the search for twins remembers, at about 1 KB each; beyond that the oldest are forgotten."""
    resources: Resources = operational(Resources())
    """Of each task that cuts a shard of books."""

    @model_validator(mode="after")
    def sizes_fit(self) -> "CorpusConfig":
        if self.overlap >= self.size:
            raise ValueError(f"overlap {self.overlap} must be smaller than size {self.size}")
        if self.minimum > self.size:
            raise ValueError(f"minimum {self.minimum} is larger than size {self.size}")
        return self


class SynthesizeConfig(Section):
    """Turn passages into ChatML examples with vLLM engine actors."""

    model: Annotated[str | None, short("--synthesis-model")] = identity(None)
    """Model that writes the examples, if it is another than the one that is tuned: a Hugging Face id or folder."""
    endpoint: Annotated[str | None, short("--endpoint")] = operational(None)
    """Base URL of a server with an OpenAI-compatible API (LM Studio, a remote vLLM, llama.cpp) that answers instead of engines
    of our own; `model` is its name there. A key, if it wants one, comes from $OPENAI_API_KEY."""
    contract: Literal["auto", "plain", "json"] = identity("auto")
    """How a reply is asked for: one `json` object with questions and answers, by a schema that the engine enforces, or `plain`
    text that answers a question drawn outside the model. `auto`: what the last `--preview` of this run measured to yield more,
    else plain for models under a billion parameters."""
    examples: Annotated[int, short("--examples")] = growth(10_000, ge=1)
    """Examples to make, over all components."""
    passages: Annotated[int | None, short("--passages")] = growth(None, ge=1)
    """Use at most this many passages, the best scored of every book in turn. Default: all."""
    examples_per_passage: int = identity(2, ge=1)
    """Examples that a passage gives at most."""
    gap_filling: bool = identity(True)
    """Where the passages do not suffice for a component, fill the rest of its slots without one, on a topic of the theme; off:
    passages are used again, beyond `examples_per_passage`."""
    scripts: str | None = identity(None)
    """A folder of film scripts (Fountain, or plain text with the speakers in capitals), whose scenes are adapted."""
    chess: str | None = identity(None)
    """A folder of chess literature (.txt), whose ideas become images of speech."""
    speeches: str | None = identity(None)
    """A folder of period speeches (.txt), which are put into other words."""
    attempts: int = operational(12, ge=1)
    """Tries for a slot, each with other axes, before it is left unfilled."""
    least_filled: float = operational(0.95, gt=0, le=1)
    """Share of the slots that must be filled; below it the stage fails, and keeps what it has."""
    input: tuple[str, ...] = identity(())
    """Passages from these .jsonl or .parquet files (id, text; as `corpus` writes them), without an earlier run; `--input` of
    `deepred synthesize`."""
    temperature: float = identity(0.8, gt=0, le=2)
    min_p: float = identity(0.1, ge=0, lt=1)
    """Tokens less likely than this share of the likeliest are never drawn."""
    repetition_penalty: float = identity(1.1, ge=1, le=2)
    passage_chars: int = identity(1500, ge=64)
    """A passage longer than this is cut before it is shown to the model, in characters."""
    answer_chars: tuple[int, int] = identity((50, 500))
    """Shortest and longest answer, in characters."""
    validation_share: float = identity(0.1, gt=0, le=0.5)
    """Share of the works whose examples are held out for validation."""
    judge_model: Annotated[str | None, short("--judge-model")] = identity(None)
    """Another model that scores every accepted reply from 1 to 5 on the theme's rubric: a Hugging Face id or folder."""
    judge_threshold: float = identity(3.0, ge=1, le=5)
    """Score (mean over the rubric) that an example needs, where there is a judge."""
    engines: int = operational(1, ge=1)
    """Engine actors; one for each accelerator, or one on a CPU."""
    engines_least: int | None = operational(None, ge=1)
    """Let the pool grow from so many to `engines` and shrink again, as the work asks for. Default: always `engines`."""
    tensor_parallel: int = operational(1, ge=1)
    """Accelerators that one engine spans."""
    max_model_len: int = operational(4096, ge=512)
    """Longest prompt and reply, in tokens."""
    in_flight: int = operational(128, ge=1)
    """Slots that one engine works on at the same time; what its KV cache cannot hold waits in the engine."""
    kv_cache_gib: float = operational(1.0, gt=0)
    """Memory for the engine's KV cache on a CPU, in GiB. On GPUs vLLM takes what is free."""
    resources: Resources = operational(Resources())
    """Of each engine, the judge's too."""

    @property
    def fewest_engines(self) -> int:
        """Engine actors that must be there for the work to begin."""
        return min(self.engines_least or self.engines, self.engines)


class TrainConfig(Section):
    """Fine-tune the model with LoRA under Ray Train."""

    dataset: Annotated[str | None, short("--dataset")] = identity(None)
    """A ChatML .jsonl file to train on, without an earlier run."""
    exemplars: int = identity(0, ge=0)
    """Train on the theme's own exemplars too, each so many times an epoch: few, but written by hand."""
    workers: Annotated[int, short("--workers")] = operational(1, ge=1)
    """Training workers: one for each accelerator, or processes on CPUs."""
    rank: int = identity(32, ge=1)
    alpha: int = identity(64, ge=1)
    dropout: float = identity(0.05, ge=0, lt=1)
    learning_rate: float = identity(5e-5, gt=0)
    warmup: float = identity(0.1, ge=0, lt=1)
    """Share of all steps over which the learning rate rises; it falls along a cosine afterwards."""
    weight_decay: float = identity(0.01, ge=0)
    epochs: Annotated[int, short("--epochs")] = growth(3, ge=1)
    patience: int | None = growth(None, ge=1)
    """Stop early, after this many validations in a row without a lower loss. Default: never."""
    batch: int = operational(4, ge=1)
    """Rows of `max_tokens` that one worker computes at a time, a micro-batch; of shorter rows more."""
    global_batch: int = identity(16, ge=1)
    """Examples in one optimizer step over all workers; gradients are accumulated up to it."""
    max_tokens: int = identity(1024, ge=64)
    """Longest training sequence; an example that is longer is a reject."""
    precision: Literal["auto", "bf16", "f32"] = operational("auto")
    """`auto`: bf16 on a GPU that has it; on a CPU the faster one, which is measured."""
    base_bits: Literal[4, 8] | None = identity(None)
    """Hold the base in 4 bits (NF4) or 8 by bitsandbytes, on GPUs; the adapter is merged into the whole base all the same."""
    gradient_checkpointing: bool = operational(True)
    """Trade a third more computing for memory."""
    checkpoint_steps: int = operational(20, ge=1)
    """Optimizer steps between two checkpoints and validations."""
    seed: int = identity(0)
    resources: Resources = operational(Resources())
    """Of each training worker."""


class ExportConfig(Section):
    """Merge the adapter into its base and write GGUF files that llama.cpp and LM Studio load."""

    adapter: Annotated[str | None, short("--adapter")] = identity(None)
    """A PEFT adapter folder to export, without an earlier run; `--model` names its base."""
    quantizations: tuple[Quantization, ...] = growth(("q8_0",))
    """One GGUF file for each. The K-quants want `llama-quantize` on PATH, or the extra `kquants`."""
    deploy: Annotated[tuple[Literal["lmstudio", "ollama"], ...], short("--deploy")] = operational(())
    """Put the first of the GGUF files where an application finds it: `lmstudio` copies it to LM Studio's models folder, and loads
    it if its `lms` is there; `ollama` writes a Modelfile beside it. `deepred export --deploy` may be said of an exported run."""
    lm_studio: str | None = operational(None)
    """LM Studio's models folder. Default: where LM Studio says, or ~/.lmstudio/models."""
    tolerance: float = operational(0.5, gt=0)
    """Largest difference between logits of adapter and merged model that is accepted, and in nats between the likeliest tokens of
    the merged model and of an f16 or f32 file."""
    resources: Resources = operational(Resources())
    """Of the task that merges and of each that writes a GGUF file; they use no accelerator."""


class EvaluateConfig(Section):
    """Ask base and tuned model the theme's evaluation prompts, and judge the answers."""

    prompts: int | None = growth(None, ge=1)
    """Ask a stratified choice of this many prompts. Default: all of them."""
    others: Annotated[tuple[str, ...], short("--others")] = growth(())
    """Other models to measure on the same prompts, with the persona's system prompt: a Hugging Face id or folder, a .gguf file, or
    NAME@URL of a server with an OpenAI-compatible API. Without a trained run they are measured without that prompt too."""
    gguf: bool = growth(False)
    """Also ask the run's smallest GGUF file, in llama.cpp."""
    retests: int = growth(2, ge=0)
    """Times that the persona's prompts are asked again, in another order and at temperature 0.7; everything else is greedy."""
    max_tokens: int = identity(120, ge=8)
    """Longest answer, in tokens."""
    texts: int = growth(40, ge=0)
    """Held-out examples, and pieces of general prose, over which perplexity is measured."""
    judge_model: str | None = identity(None)
    """Another model that scores every greedy answer from 1 to 5 on the theme's rubric: a Hugging Face id or folder."""
    resources: Resources = operational(Resources())
    """Of each engine, and of the task that measures perplexity."""


class RayConfig(Section):
    """Where the work runs."""

    address: str | None = operational(None)
    """Address of a running cluster (`auto`, or host:port). Default: $RAY_ADDRESS, else Ray is started on this machine."""
    cpus: int | None = operational(None, ge=1)
    """CPUs that a local Ray may use. Default: all."""


class Config(Section):
    """Every setting of a run."""

    run: str = operational("deepred", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run: its folder under the data root."""
    data_root: str = operational("")
    """Folder or URI (s3://, gs://) of all runs. Default: $GUTENBERG_DATA, else ./runs."""
    theme: str = identity("deepred")
    """Name of a theme that ships with the package, or a folder with the same files: absolute, beside the configuration file that
    names it, or under the current one. `deepred check-theme` checks it."""
    model: str = identity("smollm2")
    """The model that is tuned: a Hugging Face id, a folder, or `smollm2`, the 135M model that comes with the set-up."""
    trust_remote_code: bool = operational(False)
    """Run Python code that a model or tokenizer brings. Off: what needs such code is refused. Read that code first."""
    acquire: AcquireConfig = AcquireConfig()
    corpus: CorpusConfig = CorpusConfig()
    synthesize: SynthesizeConfig = SynthesizeConfig()
    train: TrainConfig = TrainConfig()
    export: ExportConfig = ExportConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    ray: RayConfig = RayConfig()

    @property
    def root(self) -> str:
        return self.data_root or os.environ.get("GUTENBERG_DATA") or "./runs"


def read_toml(path: str) -> dict[str, Any]:
    """The settings of one TOML file. A theme that lies beside the file is named from where this process stands.

    Raises:
        ConfigError: no such file, or it is not TOML.
    """
    try:
        values = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"config file {path}: {error.strerror or error}", "Give --config an existing .toml file.") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, a number too long or tables too deep, as well
        raise ConfigError(f"config file {path} is not TOML: {error}") from error
    theme = values.get("theme")
    if isinstance(theme, str) and (Path(path).parent / theme / "theme.toml").is_file():
        values["theme"] = os.path.normpath(Path(path).parent / theme)
    return values


def load(values: dict[str, Any], origin: str) -> Config:
    """The configuration that `values` describe; `origin` is the file or command that they came from.

    Raises:
        ConfigError: an unknown key, a wrong type or a value out of bounds; the message names every one. Or a value that holds
            a password or a token, which would be written into the run; the message does not repeat it.
    """
    if found := [where for where, text in texts_of(values) if SECRET.search(text)]:
        raise ConfigError(
            f"{origin}: `{found[0]}` holds a password or a token, and settings are written into the run and its logs",
            "Leave it out. Keys come from the environment: HF_TOKEN, OPENAI_API_KEY, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY.",
        )
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = [describe(problem) for problem in error.errors()]
        raise ConfigError(f"{origin}: " + "; ".join(problems), "`deepred run --help` lists every setting.") from error


def texts_of(values: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Every text in settings as they are read, keys too, with the name of its setting."""
    if isinstance(values, str):
        yield where, values
    elif isinstance(values, dict):
        for key, value in values.items():
            yield where or "settings", str(key)
            yield from texts_of(value, f"{where}.{key}".lstrip("."))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from texts_of(value, where)


def describe(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown setting `{where}`"
    return f"`{where}` = {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
