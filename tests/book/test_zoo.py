"""The page of the zoo: derived from the records, complete, and its lines load what they say."""

import json
import sys
from pathlib import Path

import pytest

from mmlearn.notebooks import Notebook
from mmlearn.pretrained.extras import gguf_of_extra
from mmlearn.pretrained.zoo import zoo_records

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book"))  # as conf.py has it

import zoo  # noqa: E402

RECORD = {"steps": 1200, "seed": 3, "data": "scenes, train", "licence": "MIT", "seconds": 90, "megabytes": 0.4}


def installed(extra):
    try:
        return bool(gguf_of_extra(extra))
    except FileNotFoundError:
        return False


def page_of(folder, **changes):
    chapter = Notebook("07b", "07b_bag", "A bag?", 1.0, Path("07b_bag.ipynb"))
    return zoo.zoo_page({"x": RECORD | {"lesson": "07b", "system": "clip"} | changes}, [chapter], folder, folder)


def test_every_model_of_the_zoo_has_a_section_with_its_record():
    page = zoo.zoo_page(zoo_records(), [], ROOT / "book" / "results", ROOT / "notebooks" / "heroes")
    for name, record in zoo_records().items():
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        for said in (
            f"{record['steps']:,}",
            f"{record['megabytes']} MB",
            f'load_zoo("{name}"',
            "| untrained | chance |",
        ):
            assert said in section, (name, said)


def test_the_lines_load_what_they_say():
    for name, record in zoo_records().items():
        if not record["system"]:
            continue
        if all(map(installed, record.get("parts", {}).values())):
            known = {}
            exec(zoo.load_lines(name, record), known)
            assert known["record"] == record
        else:
            with pytest.raises(FileNotFoundError, match="pip install"):
                exec(zoo.load_lines(name, record), {})


def test_a_model_says_lesson_picture_and_measures_of_its_lesson(tmp_path):
    assert "heroes/07b.png" not in page_of(tmp_path)
    assert "| untrained |" not in page_of(tmp_path)
    (tmp_path / "07b.png").touch()
    rows = [("right", 0.5), ("right, zoo", 0.875), ("right, untrained", 0.25)]
    results = [{"name": name, "obtained": value, "chance": 0.125} for name, value in rows]
    (tmp_path / "07b").mkdir()
    (tmp_path / "07b" / "laptop.json").write_text(json.dumps({"runs": [{"results": results}]}))
    page = page_of(tmp_path)
    assert "heroes/07b.png" in page
    assert "| right | 0.875 | 0.250 | 0.125 |" in page
    assert "[07b · A bag?](/chapters/07b_bag.ipynb)" in page
    assert "| right | 0.9 | – | – |" in page_of(tmp_path, measures={"right": 0.9})  # its own go first


@pytest.mark.parametrize(("licence", "weights"), [("MIT", "Apache-2.0"), ("CC-BY-SA-4.0", "that of the data")])
def test_copyleft_data_pass_their_licence_on(tmp_path, licence, weights):
    assert f"| licence of the weights | {weights} |" in page_of(tmp_path, licence=licence)
