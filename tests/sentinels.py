"""Secrets that nobody has, put into the environment of a command, and the search for them in all that it wrote."""

from pathlib import Path

import pyarrow.parquet as pq

SENTINELS = {
    "HF_TOKEN": "hf_s3nt1nelOfHuggingFace0123456789",
    "OPENAI_API_KEY": "sk-s3nt1nel-of-openai-0123456789",
    "AWS_ACCESS_KEY_ID": "AKIAS3NT1NELOFAWS012",
    "AWS_SECRET_ACCESS_KEY": "s3nt1nel/of/aws/0123456789",
    "AWS_SESSION_TOKEN": "s3nt1nel-session-0123456789",
}


def found_in(folder: Path) -> list[str]:
    """Files below a folder that hold one of the secrets, in whatever form they are; tables are unpacked."""
    holding = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        raw = path.read_bytes()
        if path.suffix == ".parquet":
            raw += str(pq.read_table(path).to_pylist()).encode()
        if any(secret.encode() in raw for secret in SENTINELS.values()):
            holding.append(str(path.relative_to(folder)))
    return holding
