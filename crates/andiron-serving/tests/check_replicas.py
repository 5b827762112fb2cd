#!/usr/bin/env python3
"""Runs examples/deploy/serving/check.py for a few seconds: three replicas of a small model behind nginx, killed and restarted under load.

    python check_replicas.py

Not part of `cargo test`, because it needs nginx; where there is none, it is left out. The program is the one that ANDIRON names, or `andiron` in the
release folder of the target directory.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "clients"))

from server import ROOT, program, small_decoder  # noqa: E402


def main() -> int:
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin")
    if nginx is None:
        print("skip: nginx is not here")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        model = small_decoder(pathlib.Path(folder))
        check = [sys.executable, str(ROOT / "examples/deploy/serving/check.py"), program(), str(model), "--nginx", nginx]
        # Times are not compared where other programs run beside it.
        return subprocess.run([*check, "--seconds", "5", "--clients", "48", "--only", "kill,restart,sticky"]).returncode


if __name__ == "__main__":
    sys.exit(main())
