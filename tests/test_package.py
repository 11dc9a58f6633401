"""The library as a whole: what importing it costs, what imports what, and what it explains."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mmlearn
import mmlearn.models
from mmlearn.recipes.discovery import find_recipe, system_files

ROOT = Path(mmlearn.__file__).parent
FILES = {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.rglob("*.py")) if "_shipped" not in path.parts}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}

# Imports.

HEAVY = {
    "IPython", "PIL", "huggingface_hub", "jupyter_core", "jupyterlab", "latex2mathml", "matplotlib",
    "nbconvert", "nbformat", "pandas", "papermill", "pycocoevalcap", "pycocotools", "resvg_py", "scipy",
    "sklearn", "soundfile", "tensorboard", "torchaudio", "torchvision", "transformers", "typer", "webdataset",
}  # fmt: skip
NEEDED = {
    "accelerate",
    "einops",
    "jaxtyping",
    "mmlearn",
    "numpy",
    "packaging",
    "safetensors",
    "tokenizers",
    "tqdm",
    "yaml",
}


def imported(program):
    """The packages outside the standard library that a fresh Python has after ``import torch``, and after more."""
    program = f"import sys, torch; print(*sys.modules)\n{program}\nprint(*sys.modules)"
    command = [sys.executable, "-c", program]
    lines = subprocess.run(command, timeout=120, check=True, capture_output=True, text=True).stdout.splitlines()
    return [
        {name.partition(".")[0] for name in line.split()} - set(sys.stdlib_module_names)
        for line in (lines[0], lines[-1])
    ]


def test_import_mmlearn_adds_nothing_to_torch_but_itself():
    before, after = imported("import mmlearn")
    assert after - before == {"mmlearn"}


def test_what_a_training_imports_is_no_plotting_notebook_or_hub():
    parts = "layers, objectives, models, recipes, data, evaluation, pretrained, training"
    before, after = imported(
        "".join(f"import mmlearn.{part}\n" for part in parts.split(", "))
        + "from mmlearn.recipes.discovery import find_recipe, system_files\n"
        + "for name in system_files(): find_recipe(name)\n"
        + "import mmlearn.training.loop, mmlearn.data.synthetic.scenes, mmlearn.data.packaged.emoji\n"
        + "import mmlearn.data.readers.folder"
    )
    added = {name for name in after - before if not name.startswith("_")}
    assert added & HEAVY == set()
    assert {"mmlearn", "einops", "jaxtyping"} <= added
    assert added <= NEEDED | {"google"}  # a namespace that other packages bring


def test_a_class_costs_what_its_own_file_imports():
    before, after = imported("from mmlearn.models import CLIP")
    assert {name for name in after - before if not name.startswith("_")} <= NEEDED | {"google"}
    with pytest.raises(ImportError, match="CLIPP"):
        from mmlearn.models import CLIPP  # noqa: F401


@pytest.mark.parametrize("name", [*system_files()])
def test_a_system_is_found_by_its_name_and_by_its_class(name):
    recipe = find_recipe(name)
    for one in (recipe.system, recipe.config):
        assert getattr(mmlearn.models, one.__name__) is one


def test_the_command_line_imports_what_a_command_needs_and_no_more():
    _, after = imported("import mmlearn.cli")
    assert after & (HEAVY - {"typer"}) == set()


# What imports what: layers ← models → objectives; data, evaluation and visualization know no model.

MAY = {
    "suggestions": set(),
    "tensor_checks": set(),
    "user_folder": set(),
    "files": set(),
    "escaping": set(),
    "progress": {"files"},
    "layers": {"suggestions", "tensor_checks"},
    "lazy": set(),
    "objectives": {"lazy", "tensor_checks"},
    "generation": {"layers", "objectives.ctc"},  # whose lattice is searched
    "models": {"lazy", "layers", "objectives", "generation", "suggestions", "tensor_checks"},
    "recipes": {
        "data",
        "evaluation",
        "generation",
        "layers",
        "models",
        "suggestions",
        "objectives",
        "pretrained.backbone",
    },
    "pretrained": {
        "models",
        "layers",
        "suggestions",
        "recipes",
        "files",
        "escaping",
        "data.packaged",
        "data.tokenizer",
        "data.grid_features",
        "generation",  # by which a chat pads prompts and writes
    },
    "data": {
        "suggestions",
        "user_folder",
        "files",
        "objectives",
        "layers.config",
        "models.vision.backbone",
        "pretrained.backbone",
    },
    "evaluation": {"data", "objectives", "generation.cache"},  # which pads prompts
    "visualization": {"evaluation", "data", "files", "escaping"},
    "training": {
        "data",
        "evaluation",
        "generation",
        "recipes",
        "objectives",
        "layers",
        "files",
        "suggestions",
        "tensor_checks",
    }
    | {"progress", "pretrained"},  # parts that others have trained
    "chapters": {"files", "escaping", "suggestions", "layers", "training", "visualization"},
    "reported": set(),
    "lessons": {"chapters", "files", "reported", "suggestions", "visualization", "pretrained", "data.tokenizer"},
    "data/build": {"chapters", "data", "models", "objectives", "pretrained", "training"},  # nothing imports it
    "notebook_page": {"escaping", "reported"},
    "notebooks": {"chapters", "lessons", "notebook_page", "files", "suggestions", "progress"},
    "processes": set(),
    "exercises": {"chapters", "user_folder", "files", "suggestions"},
    "doctor": {"data", "pretrained"},
    "console": {"escaping", "files", "progress"},
    "exercise_commands": {"exercises", "console"},
    "run_command": {"chapters", "notebooks", "pretrained", "console"},
    "chat_command": {"training", "console", "escaping"},
    "plan_command": {"recipes", "training", "console", "escaping"},
    "systems_command": {"recipes", "pretrained"},
    "train_command": {"data", "recipes", "training", "console", "escaping"},
}  # cli, __main__ and __init__ sit on top


def imports(name):
    """The modules of mmlearn that a file names in any import, also inside a function."""
    package = ["mmlearn", *Path(name).parts[:-1]]
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("mmlearn."))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module == "mmlearn":
                yield from (f"mmlearn.{alias.name}" for alias in node.names if not alias.name.startswith("__"))
            elif module.startswith("mmlearn."):
                yield module
                yield from (f"{module}.{alias.name}" for alias in node.names)


MODELS = {
    f"{find_recipe(name).system.__module__.removeprefix('mmlearn.').replace('.', '/')}.py" for name in system_files()
}


def is_system(name):
    """Whether a file of the library is a system's: a class with a loss and a configuration, which a recipe names."""
    return name in MODELS


def part(name):
    return "data/build" if name.startswith("data/build/") else Path(name).parts[0].removesuffix(".py")


def test_every_part_of_the_library_has_its_position():
    assert {part(name) for name in FILES} == {*MAY, "cli", "__init__", "__main__"}


def test_nothing_imports_what_builds_the_archives():
    above = [name for name in FILES if part(name) != "data/build"]
    assert [name for name in above if any(f"{one}.".startswith("mmlearn.data.build.") for one in imports(name))] == []


@pytest.mark.parametrize("upper", MAY)
def test_arrows_point_one_way(upper):
    def allowed(name, module):
        known = MAY[upper] | {upper}
        return any(f"{module}.".startswith(f"mmlearn.{one}.") for one in known)

    of_part = [name for name in FILES if part(name) == upper]
    assert [(name, module) for name in of_part for module in imports(name) if not allowed(name, module)] == []


# What the paper itself defines as the other system with something more.
EXTENDS = {
    "bridges/blip_2_t5.py": "text.t5",
    "bridges/vlm.py": "text.llama",
    "fusion/ernie_vil.py": "fusion.vilbert",
    "fusion/kvl_bert.py": "fusion.vl_bert",
    "fusion/vinvl.py": "fusion.oscar",
    "text/opt.py": "text.gpt2",
    "text/std_roberta.py": "text.bert",
}


def test_no_system_imports_another():
    """What systems share lies in their family's folder, in a file that is no system; but a system may extend one."""
    systems = {find_recipe(name).system.__module__ for name in system_files()}
    assert {"mmlearn.models.contrastive.clip", "mmlearn.models.vision.vit"} <= systems
    assert {name for name in FILES if "    PRESETS = " in FILES[name].read_text(encoding="utf-8")} == MODELS
    wrong = {f"{name} imports {module}" for name in FILES if is_system(name) for module in imports(name)} & {
        f"{name} imports {module}" for name in FILES for module in systems
    }
    assert wrong == {f"models/{name} imports mmlearn.models.{module}" for name, module in EXTENDS.items()}


# Docstrings.


EXPLAINED = {
    node.name: {part.name for part in node.body if isinstance(part, ast.FunctionDef) and ast.get_docstring(part)}
    for tree in TREES.values()
    for node in tree.body
    if isinstance(node, ast.ClassDef)
}  # class → its methods with a docstring


def undocumented(name):
    """Public functions and classes of a file, and public methods, without a docstring.

    Configurations and outputs of systems explain themselves by their fields; a forward and what stands for it
    (``encode_image``, in layers, models and pretrained) by its class, a property by its name, and what a class of
    the library already explains by that, where it is overridden.
    """
    for node in TREES[name].body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        fields = isinstance(node, ast.ClassDef) and node.name.endswith(("Config", "Output"))
        if not ast.get_docstring(node) and not (fields and part(name) in ("models", "layers")):
            yield node.name
        above = {base.id for base in node.bases if isinstance(base, ast.Name)} if isinstance(node, ast.ClassDef) else ()
        explained = {method for base in above for method in EXPLAINED.get(base, ())}
        for method in node.body if isinstance(node, ast.ClassDef) else []:
            if isinstance(method, ast.FunctionDef) and not method.name.startswith("_") and method.name not in explained:
                named = any("property" in ast.unparse(decorator) for decorator in method.decorator_list)
                by_class = part(name) in ("models", "layers", "pretrained")
                if not ast.get_docstring(method) and not named and not by_class:
                    yield f"{node.name}.{method.name}"


@pytest.mark.parametrize("name", FILES)
def test_what_is_public_is_explained(name):
    assert list(undocumented(name)) == []
    assert ast.get_docstring(TREES[name]), "the file has no docstring"


# Randomness is an argument.

DRAWS = {"rand", "randn", "randint", "randperm", "multinomial", "bernoulli", "normal", "rand_like", "randn_like"}
IN_POSITION = {"uniform_", "normal_", "bernoulli_", "random_", "exponential_"}


def drawn_from_global_state(tree):
    """Calls that draw without a generator."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner, name = ast.unparse(node.func.value), node.func.attr
            given = any(keyword.arg == "generator" for keyword in node.keywords)
            of_torch = ((owner == "torch" and name in DRAWS) or name in IN_POSITION) and not given
            of_numpy = owner in ("np.random", "numpy.random") and name not in ("get_state", "set_state", "default_rng")
            of_python = owner == "random" and name not in ("getstate", "setstate", "Random")
            if of_torch or of_numpy or of_python:
                yield f"{owner}.{name} in line {node.lineno}"


@pytest.mark.parametrize("name", [name for name in FILES if part(name) not in ("layers", "models", "doctor")])
def test_nothing_draws_from_global_state(name):
    """New layers do for their weights, as in all of PyTorch, and so follow ``torch.manual_seed``; doctor only times."""
    assert list(drawn_from_global_state(TREES[name])) == []


@pytest.mark.parametrize("name", [name for name in FILES if part(name) in ("layers", "models")])
def test_layers_draw_for_their_weights_alone(name):
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef) and node.name in ("forward", "loss", "encode_image", "encode_text"):
            assert list(drawn_from_global_state(node)) == [], node.name


def test_the_search_for_draws_finds_them():
    lines = [
        "torch.rand(3)",
        "x.normal_()",
        "np.random.rand()",
        "random.choice(x)",
        "torch.randperm(3, generator=None or g)",
    ]
    found = [bool(list(drawn_from_global_state(ast.parse(line)))) for line in lines]
    assert found == [True, True, True, True, False]


# What a file that is lifted brings along.

LOADED = """
import importlib, sys
from pathlib import Path
for name in sys.argv[1:]:
    importlib.import_module(name)
    files = [sys.modules.pop(one).__file__ for one in list(sys.modules) if one.partition(".")[0] == "mmlearn"]
    print(name, len(files), sum(len(Path(file).read_text("utf-8").splitlines()) for file in files))
"""


def test_a_model_file_loads_little():
    """How many of our modules, and lines of them: a student reads a system with what it stands on."""
    names = [f"mmlearn.{name.removesuffix('.py').replace('/', '.')}" for name in sorted(MODELS)]
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *names], check=True, capture_output=True, text=True, timeout=600
    )
    loaded = {name: (int(modules), int(lines)) for name, modules, lines in map(str.split, done.stdout.splitlines())}
    assert {name: cost for name, cost in loaded.items() if cost[0] > 40 or cost[1] > 3500} == {}
    modules, lines = loaded["mmlearn.models.contrastive.clip"]
    assert modules <= 22
    assert lines <= 1800
