"""The Arrow schema of every table that a run writes. Column comments say what a value means and its unit."""

import pyarrow as pa

BOOKS = pa.schema(
    [
        ("book_id", pa.string()),  # Gutenberg's number, or the id that a local input gave
        ("title", pa.string()),
        ("authors", pa.list_(pa.string())),
        ("birth_year", pa.int16()),  # of the first author; negative before our era; null if unknown
        ("death_year", pa.int16()),
        ("language", pa.string()),  # ISO 639-1, judged by the body
        ("subjects", pa.list_(pa.string())),
        ("text", pa.large_string()),  # without boilerplate
        ("body_start", pa.int64()),  # characters of front matter at the start of `text`, which make no passages
        ("year", pa.int16()),  # first publication, or the latest that it can be
        ("year_evidence", pa.string()),  # the words that dated it
        ("year_confidence", pa.string()),  # text.dating.CONFIDENCES, from title_page to none
        ("encoding", pa.string()),  # that the bytes were decoded with
        ("boilerplate_rule", pa.string()),  # rules that stripped it
        ("source_url", pa.string()),
        ("sha256", pa.string()),  # of the bytes as they came
        ("fetched_at", pa.timestamp("s", tz="UTC")),
    ]
)

CHUNKS = pa.schema(
    [
        ("chunk_id", pa.string()),  # book_id:start-end
        ("book_id", pa.string()),
        ("title", pa.string()),
        ("start", pa.int64()),  # characters into the book's `text`
        ("end", pa.int64()),
        ("text", pa.large_string()),
        ("themes", pa.map_(pa.string(), pa.int16())),  # theme -> distinct keywords of the plan that hit
        ("total", pa.int32()),  # sum of `themes`: the plan's number of matches
        ("weights", pa.map_(pa.string(), pa.float32())),  # theme -> weight of the lexicon's terms that hit
        ("score", pa.float32()),  # text.themes.Scorer.score
        ("kept", pa.bool_()),  # a kept chunk is a passage
        ("reason", pa.string()),  # why it was dropped; null if kept
        ("twin_of", pa.string()),  # chunk_id of the earlier chunk that this one repeats
    ]
)

SLOTS = pa.schema(
    [
        ("example_id", pa.string()),  # component-number
        ("component", pa.string()),  # core, style, chess or mission
        ("number", pa.int32()),  # within the component
        ("source", pa.string()),  # where its passage is from: books, scripts, chess, speeches; or none, to fill a gap
        ("chunk_id", pa.string()),  # null without a passage
        ("book_id", pa.string()),  # the work; the example_id without a passage
        ("persona", pa.string()),
    ]
)

MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])

CANDIDATES = pa.schema(
    [
        ("example_id", pa.string()),
        ("attempt", pa.int16()),  # from 0
        ("system", pa.string()),  # system prompt that the example will carry
        ("question", pa.string()),  # the first; null where the model should have written one and did not
        ("messages", pa.list_(MESSAGE)),  # system, then user and assistant in turns; null unless accepted
        ("replies", pa.list_(pa.string())),  # raw texts from the engine, one a request
        ("finish_reason", pa.string()),  # of the last request: stop, length, error or crash
        ("prompt_tokens", pa.int32()),  # over all requests
        ("tokens", pa.int32()),  # generated, over all requests
        ("started_at", pa.timestamp("ms", tz="UTC")),
        ("seconds", pa.float32()),  # from the first request to the last reply
        ("first_token_s", pa.float32()),  # seconds to the first token of the first reply; null if unknown
        ("model", pa.string()),
        ("sampling", pa.string()),  # parameters of the requests, as JSON
        ("prompt_sha", pa.string()),
        ("axes", pa.map_(pa.string(), pa.string())),  # contract, asker, intent, tone, length, form, turns
        ("reason", pa.string()),  # why the validators refused it; null if accepted
        ("detail", pa.string()),
    ]
)

JUDGEMENTS = pa.schema(
    [
        ("example_id", pa.string()),
        ("attempt", pa.int16()),
        ("model", pa.string()),  # the judge
        ("score", pa.float32()),  # mean over the rubric, 1 to 5; null where the judge gave no usable reply
        ("scores", pa.map_(pa.string(), pa.int8())),  # rubric axis -> 1 to 5
        ("reasons", pa.map_(pa.string(), pa.string())),  # rubric axis -> the judge's words
        ("reply", pa.string()),  # raw
        ("reason", pa.string()),  # why there is no score; null if there is one
        ("detail", pa.string()),
    ]
)

REVIEWS = pa.schema(
    [
        ("example_id", pa.string()),
        ("attempt", pa.int16()),
        ("verdict", pa.string()),  # keep or reject
        ("note", pa.string()),  # the reviewer's words
        ("reviewer", pa.string()),
        ("reviewed_at", pa.timestamp("us", tz="UTC")),  # the latest verdict on an attempt counts
    ]
)

EXAMPLES = pa.schema(
    [
        ("example_id", pa.string()),
        ("component", pa.string()),
        ("source", pa.string()),
        ("persona", pa.string()),
        ("chunk_id", pa.string()),
        ("book_id", pa.string()),
        ("attempt", pa.int16()),
        ("axes", pa.map_(pa.string(), pa.string())),
        ("messages", pa.list_(MESSAGE)),
        ("score", pa.float32()),  # the judge's; null without one
        ("scores", pa.map_(pa.string(), pa.int8())),
        ("reasons", pa.map_(pa.string(), pa.string())),
        ("cluster", pa.string()),  # example_id of the first of its near-duplicates and of its work; a cluster never crosses splits
        ("split", pa.string()),  # train or val
    ]
)

TOKENIZED = pa.schema(
    [
        ("example_id", pa.string()),
        ("split", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("trained", pa.list_(pa.bool_())),  # same length; true where the token is in the loss
    ]
)

# A row is a packed sequence, a row group of the file a global batch.
TOKENS = pa.schema(
    [
        ("split", pa.string()),
        ("example_ids", pa.list_(pa.string())),  # of the conversations in this row
        ("lengths", pa.list_(pa.int32())),  # tokens of each of them
        ("input_ids", pa.list_(pa.int32())),
        ("trained", pa.list_(pa.bool_())),  # same length; true where the token is in the loss
    ]
)

REJECTS = pa.schema(
    [
        ("id", pa.string()),  # of the row that was dropped
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("raw", pa.large_string()),  # only where no other table has it
    ]
)

# What a system is to be asked, and what it answered.
ASKED = pa.schema([("system", pa.string()), ("prompt_id", pa.string()), ("draw", pa.int8())])
ANSWERS = pa.schema([*ASKED, ("answer", pa.string()), ("finish_reason", pa.string()), ("tokens", pa.int32())])
RESPONSES = pa.schema(
    [
        ("system", pa.string()),  # base, base+prompt, tuned, or another that was named
        ("prompt_id", pa.string()),
        ("draw", pa.int8()),  # 0 greedy; persona prompts are asked again at a temperature, in another order
        ("category", pa.string()),
        ("kind", pa.string()),  # style, temporal or persona
        ("lead", pa.list_(pa.string())),  # the user's earlier turns
        ("prompt", pa.string()),
        ("answer", pa.string()),
        ("finish_reason", pa.string()),
        ("tokens", pa.int32()),  # of the answer
        ("ok", pa.bool_()),
        ("reason", pa.string()),  # ok, or why not
        ("fault", pa.string()),  # why it is no fluent prose; null if it is
        ("shown", pa.list_(pa.string())),  # characteristics that it shows beyond neutral texts of its length
        ("persona", pa.float32()),  # probability by the classifier that it is the persona's text
        ("score", pa.float32()),  # a judge model's, 1 to 5; null without one
    ]
)

TABLES: dict[str, pa.Schema] = {
    "books": BOOKS,
    "chunks": CHUNKS,
    "slots": SLOTS,
    "sources": CHUNKS,
    "candidates": CANDIDATES,
    "judgements": JUDGEMENTS,
    "reviews": REVIEWS,
    "examples": EXAMPLES,
    "tokens": TOKENS,
}
