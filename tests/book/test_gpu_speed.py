"""What the results page says of the speed of GPUs."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book"))  # as conf.py has it

from gpu_speed import RECORD, gpu_speed  # noqa: E402
from pages import all_results  # noqa: E402

ROW = {"system": "CLIP ViT-B/16", "implementation": "mmlearn", "mode": "eager", "cards": 1, "batch": 512}
SPEED = {"samples_per_second": 2000.4, "of_each_start": [2000.4, 1990.0, 2010.0]}


def write(root, *rows):
    path = root / RECORD
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"device": "NVIDIA <H100>", "torch": "2.12.1", "steps": list(rows)}))


def test_without_a_record_it_says_not_run_and_calls_the_goal_a_goal(tmp_path):
    page = gpu_speed(tmp_path)
    assert page.endswith("\n\nnot run\n")
    assert "The goal, not a measurement: on one H100, a utilisation of at least 50 % with CLIP ViT-B/16" in page
    assert "1.2 × as many samples a second as open_clip" in page


def test_a_record_is_shown_as_it_is(tmp_path):
    mine = ROW | SPEED | {"utilisation": 0.4567, "peak_gib": 40.25, "ratio": 1.1}
    other = ROW | SPEED | {"implementation": "open_clip", "cards": 8}
    failed = ROW | {"mode": "compiled", "failed": "Unsupported: a *thing*"}
    write(tmp_path, mine, other, failed)
    page = gpu_speed(tmp_path)
    assert "not run" not in page
    shown = "| CLIP ViT-B/16 | 1 | no | mmlearn | 2,000 (1,990 to 2,010) | 45.7% | 40.2 GiB | 1.10 |"
    assert shown in page
    assert "| CLIP ViT-B/16 | 8 | no | open\\_clip | 2,000 (1,990 to 2,010) | – | – | – |" in page
    assert "| CLIP ViT-B/16 | 1 | yes | mmlearn | failed: Unsupported: a \\*thing\\* | – | – | – |" in page
    assert page.endswith("On NVIDIA \\<H100\\>; torch 2.12.1. A batch on each card: CLIP ViT-B/16 512.\n")


def test_the_results_page_ends_with_it(tmp_path):
    """Of this checkout's book with the record of another one."""
    (tmp_path / "book").symlink_to(ROOT / "book")
    write(tmp_path, ROW | SPEED)
    found = all_results([], tmp_path / "book")
    assert found["results/index.md"].endswith(gpu_speed(tmp_path))
    assert "2,000 (1,990 to 2,010)" in found["results/index.md"]
