"""The commands of *Many GPUs* that train a vision–language model, made small: random parts, two processes on a CPU."""

import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "tools"))
from chats import llama_folder, siglip_folder  # noqa: E402

PAGE, SECTION = ROOT / "book" / "many_gpus.md", "## A vision–language model\n"
SMALL = {"--num_processes": "2", "--devices": "2", "--steps": "3", "--batch-size": "8", "--pack": "256"}
SMALL |= {"--workers": "0", "--preset": "tiny", "--text-length": "16"}
PARTS = {"google/siglip-base-patch16-224": "siglip", "HuggingFaceTB/SmolLM2-360M-Instruct": "llama"}


def commands(page: str) -> list[list[str]]:
    """Those of the section, one after the other, as a shell would split them."""
    section = page.split(SECTION)[1].split("\n## ")[0]
    blocks = re.findall(r"^```bash\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def small(command: list[str]) -> list[str]:
    """The same with small numbers, small parts, and the programs of this Python."""
    words = list(command)
    for i, word in enumerate(words[:-1]):
        words[i + 1] = SMALL.get(word, words[i + 1])
    words = [next((word.replace(name, PARTS[name]) for name in PARTS if name in word), word) for word in words]
    program = {"mmlearn": ["mmlearn"], "accelerate": ["accelerate.commands.accelerate_cli"]}[words[0]]
    return [sys.executable, "-m", *program, *words[1:]]


def main() -> int:
    """Runs them in an empty folder, and says how long it took. Returns what the first that fails ended with, or 0."""
    begun = time.perf_counter()
    with TemporaryDirectory() as name:
        folder = Path(name)
        for make, part in ((siglip_folder, "siglip"), (llama_folder, "llama")):
            (folder / part).mkdir()
            make(folder / part)
        Image.new("RGB", (64, 64), "orange").save(folder / "photo.png")
        for command in map(small, commands(PAGE.read_text(encoding="utf-8"))):
            print("$", shlex.join(command[2:]), flush=True)
            done = subprocess.run(command, cwd=folder, input="What is it?\n", text=True)
            if done.returncode:
                return done.returncode
    print(f"\nThe commands of a vision–language model, made small: {time.perf_counter() - begun:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
