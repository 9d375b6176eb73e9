"""Thousands of odd requests, drawn from /openapi.json: no 5xx. Usage: drive_schemathesis.py URL."""

import os
import subprocess
import sys
from pathlib import Path

url = sys.argv[1]
cases = os.environ.get("SMOL_EDGE_CASES", "250")  # drawn for each operation, besides those at the edges
command = [
    Path(sys.executable).parent / "schemathesis",
    *("run", f"{url}/openapi.json", "--checks", "not_a_server_error", "--max-examples", cases),
    *("--phases", "examples,coverage,fuzzing", "--mode", "all", "--generation-database", ":memory:", "--no-color"),
]
sys.exit(subprocess.run(list(map(str, command)), check=False).returncode)
