"""Look for known vulnerabilities in the installed packages, by pip-audit and OSV's advisories.

$OSV_URL is the service to ask instead of OSV's own. Exit status 0: nothing is known, or the service cannot be reached, which it
says loudly. 1: a vulnerability that no line of ACCEPTED names, or packages that could not be looked up.
"""

import os
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import requests

OSV_URL = "https://api.osv.dev/v1/query"
TIMEOUT_S = 20
OWN = "deepred-ray"
ACCEPTED: tuple[str, ...] = ()
"""Advisories that do not concern us, each with the reason as a comment."""


def installed() -> list[str]:
    """`name==version` of every package but our own. A build's own label (2.13.0+cpu) is left out: advisories know none."""
    found = {(one.metadata["Name"].lower(), one.version.partition("+")[0]) for one in metadata.distributions()}
    return [f"{name}=={version}" for name, version in sorted(found) if name != OWN]


def unreachable(url: str) -> str:
    """Why the service does not answer; empty if it does."""
    query = {"package": {"name": "requests", "ecosystem": "PyPI"}, "version": "2.32.0"}
    try:
        answer = requests.post(url, json=query, timeout=TIMEOUT_S)
        answer.json()
    except (requests.RequestException, ValueError) as error:
        return str(error)
    return "" if answer.ok else f"HTTP {answer.status_code}"


def main() -> int:
    url = os.environ.get("OSV_URL", OSV_URL)
    packages = installed()
    if why := unreachable(url):
        line = "!" * 78
        print(
            f"{line}\nNO AUDIT: {len(packages)} packages were not looked up; {url} does not answer:\n{why}\n{line}", file=sys.stderr
        )
        return 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "installed.txt")
        file.write_text("\n".join(packages) + "\n")
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(file), "--no-deps", "--disable-pip", "--strict"]
        command += ["--vulnerability-service", "osv", "--osv-url", url, "--progress-spinner", "off"]
        for advisory in ACCEPTED:
            command += ["--ignore-vuln", advisory]
        return min(1, subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    sys.exit(main())
