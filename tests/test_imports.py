"""Who may import whom: docs/design.md explains these tables."""

import ast
import functools
import graphlib
import subprocess
import sys

import pytest
from paths import ROOT

PACKAGE = ROOT / "tdt_jax"
GROUND = "config runtime audio tokenizer orthography decoding profiling".split()
INFERENCE = "config runtime audio tokenizer orthography decoding advice models recogniser".split()
ALL = [*INFERENCE, *"losses data checkpoints inference training presets plot profiling".split()]

# Of the package: what each room may import beside itself. A longer name has a row of its own.
ROOMS = {
    "config": [],
    "runtime": [],
    "audio": [],
    "orthography": [],
    "decoding": ["runtime"],
    "profiling": [],
    "tokenizer": ["orthography"],
    "advice": ["tokenizer", "orthography", "decoding"],
    "presets": ["config"],
    "plot": ["config"],
    "models": ["config", "runtime"],
    "losses": ["config", "runtime"],
    "data": ["config", "runtime", "audio", "tokenizer", "orthography"],
    "recogniser": ["config", "runtime", "tokenizer", "models"],
    "vocabulary": ["runtime", "tokenizer", "models", "recogniser"],
    "checkpoints": ["config", "runtime", "tokenizer", "models", "recogniser", "vocabulary"],
    "checkpoints.formats": ["tokenizer"],
    "inference": INFERENCE,
    "training": [
        "config",
        "runtime",
        "audio",
        "tokenizer",
        "models",
        "losses",
        "data",
        "recogniser",
        "inference",
    ],
    "exports": "config runtime tokenizer decoding models recogniser checkpoints inference".split(),
    "cluster": ["audio", "checkpoints", "inference", "recogniser", "runtime"],
    "serving": ["audio", "inference", "recogniser", "__init__"],
    "benchmarks": ALL,
    "cli": [*ALL, "exports", "serving", "benchmarks", "__init__"],
    "__init__": [
        *"advice audio.errors presets config runtime.sharding models losses decoding".split(),
        *"recogniser vocabulary checkpoints inference exports".split(),
    ],
}
# Within a room: which of its folders' files may import what of the room, and who may import them.
FOLDERS = {
    "data.prepared": (["data.manifest", "data.utterance"], ["data.sources"]),
    "data.telephone": (["data.utterance", "data.buckets"], ["data.task"]),
    "checkpoints.formats": (
        [],
        [
            *(f"checkpoints.{name}" for name in ("parakeet", "loading", "native", "adapter")),
            "exports",
        ],
    ),
    "checkpoints.parakeet": (["checkpoints.formats"], ["checkpoints.loading"]),
}
# Of others: the only places that may import a package.
PACKAGES = {
    "flax": ["models", "training.step", "benchmarks"],
    "optax": ["training", "losses.ctc"],
    "orbax": ["checkpoints.store"],
    "grain": ["data.batches"],
    "tensorflow_datasets": ["data.prepared"],
    "array_record": ["data.prepared"],
    "av": ["audio"],
    "soundfile": ["audio"],
    "soxr": ["audio"],
    "sounddevice": ["audio"],
    "scipy": ["audio"],
    "sentencepiece": ["tokenizer", "checkpoints.formats.tokenizer_json"],
    "safetensors": ["checkpoints"],
    "ml_dtypes": ["checkpoints"],
    "yaml": ["checkpoints", "data.prepared.must_c"],
    "jiwer": ["inference.metrics"],
    "sacrebleu": ["inference.metrics"],
    "kaldialign": ["inference.metrics", "inference.normalizers"],
    "whisper_normalizer": ["inference.normalizers", "inference.leaderboard_normalizer"],
    "huggingface_hub": ["checkpoints.loading"],
    "tensorboardX": ["training.progress"],
    "matplotlib": ["plot", "benchmarks.silence"],
    "torch": ["benchmarks.peers", "benchmarks.parity"],
    "transformers": ["benchmarks.peers", "benchmarks.parity"],
    "tqdm": ["cli", "data.prepared"],
    "fastapi": ["serving"],
    "starlette": ["serving"],
    "uvicorn": ["serving"],
    "prometheus_client": ["serving"],
    "onnx": ["exports.onnx_graph"],
    "ray": ["cluster"],
    "pyarrow": ["data.parquet", "cluster"],
    "websockets": ["benchmarks.serve_load"],
}
WITHOUT_JAX = [
    *"config audio tokenizer orthography data inference.transcript inference.formats".split(),
    *"inference.metrics inference.normalizers inference.long_form inference.scheduler".split(),
    "inference.end_of_turn",
]


def name_of(path) -> str:
    """The dotted name of a file within the package."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


FILES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@functools.cache
def imports(name) -> list[tuple[int, str]]:
    """(line, module) of everything that a file imports, within functions too; own names short."""
    return list(_imports(ast.parse(FILES[name].read_text(encoding="utf-8")), name))


def _imports(tree, name):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno} is relative"
            within = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [x if is_own_file(x) else node.module for x in within]
        else:
            continue
        for module in found:
            yield node.lineno, module.replace("tdt_jax", "__init__", 1).removeprefix("__init__.")


def is_own_file(module) -> bool:
    return module.startswith("tdt_jax.") and module.removeprefix("tdt_jax.") in FILES


def lies_in(name, rooms) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def is_own(module) -> bool:
    return module == "__init__" or lies_in(module, ROOMS)


@pytest.mark.parametrize("name", FILES)
def test_a_file_imports_what_its_room_may(name):
    rows = [room for room in ROOMS if lies_in(name, [room])]
    assert rows, f"{name} lies in no room of the table"
    room = max(rows, key=len)
    broken = []
    for line, module in imports(name):
        if is_own(module):
            if not lies_in(module, [room, *ROOMS[room]]):
                broken.append(f"{name}:{line} imports {module}; {room}: {ROOMS[room]}")
            for folder, (inner, outer) in FOLDERS.items():
                inside, target = lies_in(name, [folder]), lies_in(module, [folder])
                shares_room = folder.split(".")[0] == module.split(".")[0] == name.split(".")[0]
                if shares_room and inside and not target and not lies_in(module, inner):
                    broken.append(f"{name}:{line} imports {module}; {folder} may only {inner}")
                if shares_room and target and not inside and not lies_in(name, outer):
                    broken.append(f"{name}:{line} imports {module}; only {outer} may")
        else:
            package = module.split(".")[0]
            if package in PACKAGES and not lies_in(name, PACKAGES[package]):
                broken.append(f"{name}:{line} imports {package}; only {PACKAGES[package]} may")
            if package == "jax" and lies_in(name, WITHOUT_JAX):
                broken.append(f"{name}:{line} imports jax; {WITHOUT_JAX} may not")
    assert not broken, "\n".join(broken)


def test_no_file_imports_in_a_circle():
    graph = {
        name: {module for _, module in imports(name) if module in FILES and module != name}
        for name in FILES
    }
    graphlib.TopologicalSorter(graph).prepare()


def test_nobody_imports_the_command_line_at_the_top():
    for path in (ROOT / "train.py", ROOT / "tdt_jax_start.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom):
                assert not node.module.startswith("tdt_jax.cli"), f"{path.name}:{node.lineno}"


def test_a_room_names_its_files():
    for path in PACKAGE.rglob("__init__.py"):
        if path.parent == PACKAGE:
            continue
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        names = [child.name for child in path.parent.iterdir() if child.suffix == ".py"]
        missing = [name for name in names if name != "__init__.py" and name not in text]
        assert not missing, f"{path} does not name {missing}"


def test_only_the_doors_hand_on_names():
    """`__all__` is in the package's and five rooms' `__init__`, and no other file re-exports."""
    doors = {"__init__", "config", "models", "losses", "decoding", "inference"}
    rooms = {name: path for name, path in FILES.items() if path.name == "__init__.py"}
    for name, path in rooms.items():
        imported = [node for node in ast.parse(path.read_text()).body if "Import" in repr(node)]
        assert bool(imported) == (name in doors), f"{path} hands on names"


def test_no_function_hides_a_module():
    """`import tdt_jax.x as m` gives the module x, not what a door hands on by the same name."""
    for path in PACKAGE.rglob("__init__.py"):
        modules = {child.stem for child in path.parent.iterdir() if child.name[0] != "_"}
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom):
                functions = {
                    alias.asname or alias.name
                    for alias in node.names
                    if not is_own_file(f"{node.module}.{alias.name}")
                }
                assert not functions & modules, f"{path}:{node.lineno}"


def test_names_are_imported_from_the_file_that_defines_them():
    for name in [*FILES, "train"]:
        path = FILES.get(name, ROOT / "train.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not node.module.startswith("tdt_jax."):
                continue
            source = node.module.removeprefix("tdt_jax.")
            for alias in node.names if FILES[source].name != "__init__.py" else []:
                place = f"{name}:{node.lineno} imports {alias.name} from {source}"
                assert alias.name in defined(source), f"{place}, which does not define it"


@functools.cache
def defined(name) -> set[str]:
    """The names that a file defines at its top level, not those that it imports."""
    names = set()
    for node in ast.parse(FILES[name].read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            names |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    return names


def test_public_functions_are_annotated():
    """Arguments and results, of methods as well; pyright checks what the annotations claim."""
    for name, path in FILES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        for owner in [tree, *(each for each in classes if not each.name.startswith("_"))]:
            for node in owner.body:
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    arguments = [
                        *node.args.posonlyargs,
                        *node.args.args[isinstance(owner, ast.ClassDef) :],
                        *node.args.kwonlyargs,
                    ]
                    bare = [each.arg for each in arguments if each.annotation is None]
                    place = f"{name}:{node.lineno} {node.name}"
                    assert not bare, f"{place} lacks types of {bare}"
                    assert node.returns, f"{place} lacks the type of its result"


def test_importing_the_package_is_light():
    """`import tdt_jax` loads no listed package but flax and what jax and flax load themselves."""
    program = (
        "import sys, jax, flax.nnx; before = set(sys.modules); "
        "import tdt_jax; print(*(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "tdt_jax" in loaded, done.stderr
    assert not loaded & set(PACKAGES)


def test_no_test_imports_a_test():
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(str(name).startswith("test_") for name in names), f"{path}:{node.lineno}"
