#!/usr/bin/env python3
"""Sends generated requests, valid and invalid, to every route of /openapi.json, with schemathesis.

    python check_schema.py [CASES]

CASES is how many requests an operation gets at most, 30 without it; with 1000 it is a run of minutes for a release. Fails at a 5xx, and at an
answer with a status, a media type or fields that the description does not have. Not part of `cargo test`, because it needs Python with
schemathesis (xtask/requirements.txt).
"""

import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "clients"))

from server import ask, serve, small_decoder  # noqa: E402

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def main():
    cases = sys.argv[1] if len(sys.argv) > 1 else "30"
    with tempfile.TemporaryDirectory() as folder:
        # Long answers would take their time and show nothing else.
        limits = ("--max-tokens", "8", "--max-n", "2", "--max-choices", "8")
        with serve(small_decoder(pathlib.Path(folder)), more=limits) as address:
            tester = pathlib.Path(sys.executable).with_name("st")
            run = [tester, "run", f"{address}/openapi.json", "--checks", CHECKS, "--max-examples", cases, "--workers", "2", "--seed", "1"]
            run += ["--phases", "examples,coverage,fuzzing", "--request-timeout", "60", "--suppress-health-check", "all", "--no-shrink"]
            # What loads models takes paths of this machine, and has tests of its own.
            run += ["--exclude-path-regex", "^/models/(load|unload)$", "--max-failures", "5", "--output-truncate", "true", "--no-color"]
            done = subprocess.run(run, cwd=folder, text=True, capture_output=True)
            print(done.stdout[-6000:] if done.returncode else "\n".join(done.stdout.splitlines()[-12:]))
            assert done.returncode == 0, done.stderr[-2000:]
            assert ask(address, "/health")[0] == 200


if __name__ == "__main__":
    main()
