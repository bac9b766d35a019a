"""Requests that schemathesis makes up from the API's own description, for minutes, single ones and chains of them.

`python -m benchmarks.made_up_requests` (20 minutes). Starts a server with a worker and secrets of its own, and looks
in each answer for a server error, a status, type or shape that is not documented, and the secrets.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import schemathesis

from benchmarks.home_server import HomeServer, machine, wait_for

REPORT: Final = Path(__file__).parents[1] / "SECURITY.md"
COMMAND: Final = "python -m benchmarks.made_up_requests"
#: The variables of the server that hold what no answer may contain.
SECRETS: Final = ("WAN22_API_KEY", "HF_TOKEN", "WAN22_WEBHOOK_SECRET")
CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "no_secret",
)
#: An answer that takes longer counts as none, in seconds.
ANSWER_SECONDS: Final = 60
SEED: Final = 22


def draw_secrets() -> dict[str, str]:
    """Return new secrets: those in a source would be known to the maker of requests, who takes words from there."""
    secret = base64.b64encode(secrets.token_bytes(24)).decode()
    return dict(zip(SECRETS, (secrets.token_hex(16), f"hf_{secrets.token_hex(16)}", f"whsec_{secret}"), strict=True))


@schemathesis.check
def no_secret(_context: Any, response: Any, _case: Any) -> None:
    """Fail for an answer that contains a secret of the server."""
    text = response.content.decode("utf-8", "replace") + str(dict(response.headers))
    if any(os.environ[name] in text for name in SECRETS):
        raise AssertionError("the answer contains a secret")


def command_line(url: str, key: str, minutes: float) -> list[str]:
    """Return the call of schemathesis."""
    return [
        str(Path(sys.executable).with_name("schemathesis")),
        *("run", f"{url}/openapi.json", "--header", f"Authorization: Bearer {key}"),
        *("--checks", ",".join(CHECKS), "--max-time", str(round(minutes * 60)), "--seed", str(SEED)),
        # The stream does not end; tests/api/live/test_stream.py has its parameters.
        *("--exclude-path", "/api/v1/events", "--continue-on-failure", "--no-shrink", "--no-color"),
        *("--request-timeout", str(ANSWER_SECONDS), "--suppress-health-check", "all"),
    ]


def summary(output: str) -> str:
    """Return what schemathesis says at its end about operations, requests and failures."""
    found = []
    for title in ("API Operations", "Failures", "Errors", "Test cases"):
        match = re.search(rf"^{title}:\n((?:  .*\n)+)", output, re.MULTILINE)
        found += [f"| {title} | {line.strip()} |" for line in (match[1].splitlines() if match else ())]
    return "\n".join(("| | |", "| --- | --- |", *found))


def main() -> None:
    """Run it, write the end of its report into SECURITY.md, and exit like it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wan22-made-up-") as name:
        folder = Path(name)
        drawn = draw_secrets()
        server = HomeServer(folder, drawn)
        server.start()
        try:
            wait_for(lambda: server.ask("/live") is not None, 180.0, "server")
            # Written at the first question; on a busy machine schemathesis would not wait for it.
            wait_for(lambda: server.ask("/openapi.json") is not None, 180.0, "description of the API")
            began = time.monotonic()
            environment = os.environ | drawn | {"SCHEMATHESIS_HOOKS": "benchmarks.made_up_requests"}
            run = subprocess.run(
                command_line(server.url, drawn["WAN22_API_KEY"], arguments.minutes),
                env=environment | {"PYTHONPATH": str(REPORT.parent)},
                cwd=folder,
                text=True,
                capture_output=True,
                check=False,
            )
            minutes, alive = (time.monotonic() - began) / 60, server.is_running
        finally:
            server.close()
    sys.stdout.write(run.stdout + run.stderr)
    text = (
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, schemathesis {version('schemathesis')}, seed {SEED}, "
        f"{minutes:.0f} minutes; load average {os.getloadavg()[2]:.1f}. "
        f"The server {'ran to the end' if alive else 'had ended before'}.\n\n{summary(run.stdout)}"
    )
    begin, end = (f"<!-- {edge}: {COMMAND} -->" for edge in ("table", "end"))
    report = REPORT.read_text()
    before, _, rest = report.partition(begin)
    REPORT.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}")
    sys.exit(run.returncode if alive else 1)


if __name__ == "__main__":
    main()
