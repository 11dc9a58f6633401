"""What the README and the pages it leads to say works: commands are there, links lead somewhere, snippets run."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {  # of the book, to which the README leads
    name: (ROOT / "book" / f"{name}.md").read_text(encoding="utf-8")
    for name in ("all_chapters", "all_results", "own_project", "your_data", "published_weights", "promises")
}


def blocks(text, wanted):
    """The code of the fenced blocks in this language."""
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [code for language, code in map(re.Match.groups, found) if language == wanted]


def commands(text):
    return [line.split("#")[0].strip() for code in blocks(text, "bash") for line in code.splitlines()]


PYTHON = [code for text in (README, *PAGES.values()) for code in blocks(text, "python")]
COMMANDS = commands(README)
HUB_ID = "openai/clip-vit-base-patch32"


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder as a reader has it: pictures of his own, and the published model by its name."""
    folder = tmp_path_factory.mktemp("desk")
    images = folder / "my_pictures"
    images.mkdir()
    with open(images / "captions.csv", "w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["image", "caption", "split"])
        for k in range(80):
            Image.new("RGB", (70, 50), (3 * k, 255 - 3 * k, k)).save(images / f"{k}.png")
            lines.writerow([f"{k}.png", f"colour {k}, plain", "train" if k < 70 else "test"])
    return folder


@pytest.fixture(scope="module")
def published(desk):
    """A CLIP with the published layout, picture size and vocabulary, but narrow and at random weights."""
    from transformers import CLIPConfig, CLIPModel

    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    CLIPModel(CLIPConfig(text_config=size, vision_config=size, projection_dim=8)).save_pretrained(desk / HUB_ID)


def run(command, folder):
    """What a command says; it must succeed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nobody_is_sent_to_the_package_of_a_stranger():
    """``mmlearn`` on the package index is another project: what is to be installed comes from the clone."""
    ours = [path for part in ("mmlearn", "book", "notebooks", "exercises") for path in (ROOT / part).rglob("*")]
    texts = [path for path in ours if path.suffix in (".py", ".md", ".ipynb") and "_build" not in path.parts]
    advised = re.compile(r"pip install[^\n]*?['\" ]mmlearn(?![-_/])")
    assert [path for path in [*texts, *ROOT.glob("*.md")] if advised.search(path.read_text(encoding="utf-8"))] == []


def test_the_two_commands_come_first():
    assert COMMANDS[:2] == ["make lesson", "make test"]


def test_it_is_short_and_leads_to_every_page():
    assert len(README.splitlines()) <= 151
    assert [name for name in (*PAGES, "many_gpus") if f"(book/{name}.md)" not in README] == []


def recorded(name):
    """The results of each seed."""
    if name == "easy_vqa":
        runs = json.loads((ROOT / "tests" / "benchmarks" / "results" / "easy_vqa.json").read_text())["runs"]
        return [[row | {"name": row["measure"]} for row in run["measures"]] for run in runs]
    path = ROOT / "book" / "results" / f"{name if '/' in name else f'{name}/laptop'}.json"
    return [run["results"] for run in json.loads(path.read_text(encoding="utf-8"))["runs"]]


# In order of their rows: the chapter, or the chapter and scale, or another record; and the result of it.
QUOTED = {
    "README": [
        ("00", "a word points at its thing, style never seen, zoo"),
        ("07b", "NegCLIP, a style never seen"),
        ("08", "hidden colour right, style never seen, zoo"),
        ("21b", "colour and thing right, never seen, zoo"),
        ("22a", "colour right, style never seen, zoo"),
    ],
    "all_results": [
        ("00-lab", "scenes, picture → text: R@1 of 256"),
        ("00-lab", "scenes, unseen colour–shape pairs, picture → text: R@1"),
        ("00-lab", "emoji, unseen style: R@10 of 1,444 names"),
        ("01", "squares all right, style never seen: tensor"),
        ("01", "squares all right, style never seen: late"),
        ("01", "group by drawing alone, tensor: modality dropout"),
        ("01", "group by drawing alone, tensor: nothing dropped"),
        ("02", "true captions, attention"),
        ("02", "true captions, the mean again before each word"),
        ("02", "true captions, Show and Tell"),
        ("03-lab", "changed prior: a look, taught"),
        ("03-lab", "changed prior: blind"),
        ("04", "pairs seen: wrong captions"),
        ("04", "pairs seen: no wrong captions"),
        ("06-lab", "SOP: trained with NSP"),
        ("06-lab", "SOP: trained with SOP"),
        ("06-lab", "neighbours: finished"),
        ("06-lab", "neighbours: STD"),
        ("06-lab", "masked colour: STD"),
        ("06-lab", "masked colour: STD and MLM"),
        ("07b-lab", "converged clip: prefers the truth, colour swapped"),
        ("07b-lab", "swapped captions: prefers the truth, colour swapped"),
        ("07b-lab", "filip: prefers the truth, colour swapped"),
        ("07a-lab", "VSE0: R@10"),
        ("07a-lab", "VSE++: R@10"),
        ("07a-lab", "VSE++, all first: R@10"),
        ("08-lab", "hidden colour right"),
        ("08-lab", "matching right"),
        ("08-lab", "best head: pointing"),
        ("09", "ViLBERT, style never seen"),
        ("09", "LXMERT, style never seen"),
        ("09", "single stream, style never seen"),
        ("09", "a direction cut: the task that needs it"),
        ("easy_vqa", "answer accuracy"),
        ("11a", "ALBEF, best 8 re-ranked"),
        ("11b", "raw web"),
        ("11b", "filtered + written"),
        ("12a", "facts right, new pictures"),
        ("12a", "captions: colours"),
        ("12a", "labels: colours"),
        ("13c", "speech → text, five languages: R@10, mean"),
        ("13c", "speech → text, Bulgarian, five languages, never taught: R@10"),
        ("13c", "spoken caption → picture, MobileNetV2: R@10, mean"),
        ("14", "16 labelled clips, -10 dB: probe of AV-HuBERT"),
        ("14", "16 labelled clips, -10 dB: probe of AV-HuBERT untrained"),
        ("14", "16 labelled clips, -10 dB: probe of raw pixels and log-mels"),
        ("14", "units at -10 dB: sound alone"),
        ("14", "units at -10 dB: both"),
        ("16", "sound and text, trained with pictures (never met): R@1"),
        ("16", "MIL-NCE: film and text, R@10"),
        ("16", "NCE, each text: film and text, R@10"),
        ("19", "grounding: joint"),
        ("19", "grounding: separate"),
        ("19", "grounding: joint, reworded"),
        ("19b", "named box: DETR"),
        ("19d", "VL-T5: grounding"),
        ("19d", "M6: grounding"),
        ("19c", "codes right: k-means, own grounds"),
        ("19c", "codes right: VQ-VAE, own grounds"),
        ("20b", "shape, 100 labelled objects: pixels"),
        ("20b", "shape, 100 labelled objects: untrained"),
        ("21b-lab", "colour and shape: DALL·E"),
        ("21b-lab", "colour and shape: DALL·E, pairs never seen"),
        ("21d", "colour and shape: AttnGAN"),
        ("22a-lab", "projector: all"),
        ("22a-lab", "everything: all"),
        ("22b", "right labels, 4 shots"),
        ("22b", "right labels, 0 shots"),
        ("22b", "shuffled labels, 4 shots"),
        ("22d", "many forms, in texts alone: in the form, 1 shots"),
        ("22d", "one form, in texts alone: in the form, 1 shots"),
        ("22c", "second stage alone: all"),
        ("22c", "two stages: all"),
        ("22c", "Frozen: all"),
    ],
}


@pytest.mark.parametrize("page", QUOTED)
def test_its_numbers_are_the_recorded_ones(page):
    wanted = QUOTED[page]
    printed = re.findall(r"^\|.*\| ([01]\.\d\d) \| ([\d.]+) \|$", (PAGES | {"README": README})[page], re.MULTILINE)
    assert len(printed) == len(wanted)
    for (obtained, chance), (chapter, name) in zip(printed, wanted):
        runs = recorded(chapter)
        results = [row for run in runs for row in run if row["name"] == name]
        assert len(results) == len(runs) == (1 if page == "README" else 3)  # lessons are recorded with one seed
        mean = sum(row["obtained"] for row in results) / len(runs)
        assert obtained == f"{mean:.2f}", f"{name}: {mean}"
        by_chance = sum(row["chance"] for row in results) / len(runs)
        assert float(chance) == pytest.approx(by_chance, abs=6e-4), f"{name}: {by_chance}"


def test_every_make_target_that_is_named_exists():
    named = set(
        re.findall(
            r"\bmake ([a-z-]+)", "\n".join([*re.findall(r"`(.*?)`", "\n".join([README, *PAGES.values()])), *COMMANDS])
        )
    )
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"lesson", "test", "lab", "book"} <= named <= targets


def test_make_help_names_what_a_reader_needs():
    shown = run(["make", "help"], ROOT)
    for target in ("lesson", "test", "lab", "book", "bench", "gpu", "bench-gpu"):
        assert re.search(rf"^make {target} ", shown, re.MULTILINE)
    assert run(["make"], ROOT) == shown


def test_links_to_files_lead_to_files():
    for text, folder in ((README, ROOT), *((page, ROOT / "book") for page in PAGES.values())):
        links = re.findall(r"\]\(([^)#\s]+)|src=\"(.*?)\"", text)
        files = [link or source for link, source in links if "://" not in link]
        assert [file for file in files if not (folder / file).exists()] == []
    assert len(re.findall(r"\]\(book/", README)) >= len(PAGES)


def notebooks():
    return [*(ROOT / "notebooks").glob("[0-9][0-9]*_*.ipynb"), *(ROOT / "notebooks" / "labs").glob("*.ipynb")]


def test_every_chapter_and_lab_is_in_the_table():
    for notebook in notebooks():
        assert f"| {notebook.name.partition('_')[0]} | [" in PAGES["all_chapters"], notebook.name
        assert f"(../{notebook.relative_to(ROOT)})" in PAGES["all_chapters"], notebook.name


def test_the_core_path_has_its_pictures_minutes_and_labs():
    rows = re.findall(r"^\| .*\]\(notebooks/.*$", README, re.MULTILINE)
    for row in rows:
        path, *labs = re.findall(r"\]\((notebooks/.*?\.ipynb)\)", row)
        minutes = json.loads((ROOT / path).read_text(encoding="utf-8"))["metadata"]["mmlearn"]["minutes"]
        assert row.endswith(f"| {minutes:g} |"), path
        assert bool(labs) == ("<img" in row)
    for number in re.findall(r'<img src="notebooks/heroes/(\w+)\.png"', README):
        assert f"[{number} · " in README


def test_every_lesson_is_in_the_readme():
    for hero in (ROOT / "notebooks" / "heroes").glob("*.png"):
        (path,) = (ROOT / "notebooks").glob(f"{hero.stem}_*.ipynb")
        title = json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]
        title = "".join(title).partition("\n")[0].removeprefix("# ")
        assert f"[{hero.stem} · {title}](notebooks/{path.name})" in README, path.name


def test_the_image_of_the_lesson_is_shown():
    assert "(notebooks/heroes/00.png)" in README


def test_every_archive_is_credited():
    for archive in (ROOT / "mmlearn" / "data" / "archives").iterdir():
        assert f"(mmlearn/data/archives/{archive.name}/CREDITS.md)" in README


def test_there_is_a_snippet_of_each_kind():
    snippets = "\n".join(PYTHON)
    assert all(
        word in snippets for word in ("CLIP(", "info_nce(", "load_pretrained(", "load_zoo(", 'load("my_pictures"')
    )


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_python_snippets_run_and_print(number, desk, request):
    if HUB_ID in PYTHON[number]:
        request.getfixturevalue("published")
    assert run([sys.executable, "-c", PYTHON[number]], desk).strip()


def test_commands_of_mmlearn_run_in_order(desk):
    shown = [line for line in COMMANDS if line.startswith("mmlearn ")]
    assert [line.split()[1] for line in shown] == ["data", "train", "evaluate"]
    for line in shown:
        said = run(re.sub(r"--steps \d+", "--steps 2", line).split(), desk)  # fewer steps, else as it stands
        assert said.strip()
    assert (desk / "runs/mine/model.safetensors").is_file()
    assert (desk / "runs/data/my_pictures-train.png").is_file()
    assert "R@1" in said or "recall" in said
    others = [line for line in COMMANDS if line and not line.startswith(("mmlearn ", "make "))]
    assert others == []  # nothing else is shown as runnable that is not run here
    assert {line for text in PAGES.values() for line in commands(text)} <= set(shown)
