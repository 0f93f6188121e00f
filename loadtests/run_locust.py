"""Runs the locustfile without a browser page; every option of locust may be given and wins.

python -m loadtests.run_locust --host http://127.0.0.1:8000 --llm http://127.0.0.1:8001 -u 50 -t 5m
"""

import os
import sys
from pathlib import Path

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
DEFAULTS = ("--host", "http://127.0.0.1:8000", "--users", "20", "--spawn-rate", "5", "--run-time", "60s")


def command(given: list[str]) -> list[str]:
    """The locust command: of an option named twice the last one holds."""
    fixed = ["-f", str(LOCUSTFILE), "--headless", "--only-summary", "--stop-timeout", "10"]
    return [sys.executable, "-m", "locust", *fixed, *DEFAULTS, *given]


if __name__ == "__main__":
    os.execv(sys.executable, command(sys.argv[1:]))
