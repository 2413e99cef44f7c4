"""Who may import whom, compile, name mesh axes, see a ConfigDict or write linen: read from the sources with `ast`."""

import ast
import graphlib
import importlib.metadata
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "dfm_jax").rglob("*.py"))

# What each part of the package may import of it, besides itself. A part is a folder, or a module beside the folders;
# the rooms of `data/` are parts of their own, and `data` is what stands beside them: commands, and what these use.
LEAVES = {"structs", "config", "errors", "paths"}
SCENE = LEAVES | {"geometry", "rendering", "models", "forward_models"}
DIFFUSION_OF_SCENES = SCENE | {"diffusion", "denoiser", "losses"}
RUNS = {"interrupts", "runs"}  # what commands need that write results
READING = {"data.loading", "data.pictures", "examples"}
SAMPLING = DIFFUSION_OF_SCENES | RUNS | READING | {"sampling", "visualization"}
ENDS = SAMPLING | {"flops", "interop"}
JUDGING = ENDS | {"evaluation", "platforms"}
MAY_IMPORT = {
    # The public door; nothing behind it is imported before it is used.
    "__init__": {"interrupts", "errors", "structs", "data.loading", "sampling"},
    "interrupts": set(),
    "runs": LEAVES | {"interrupts", "platforms"},
    "errors": {"paths"},
    "paths": set(),
    "structs": set(),
    "config": {"errors", "paths"},
    "allocator": {"platforms"},
    "platforms": {"errors"},
    "flops": set(),
    "geometry": {"structs"},
    "diffusion": set(),
    "viewpoints": {"structs"},
    "rendering": {"structs", "geometry"},
    "models": LEAVES | {"geometry"},
    "forward_models": LEAVES | {"geometry", "rendering", "models"},
    "examples": SCENE | {"data.loading"},  # where those of a config come from
    "denoiser": SCENE | {"diffusion"},
    "losses": SCENE | {"diffusion", "denoiser"},
    # Training and reading import the first of these rooms only; a source becomes a data set in the others.
    "data.loading": LEAVES | RUNS,
    "data.pictures": {"errors"},
    "data.preparing": RUNS | {"errors", "data.loading", "data.pictures"},
    "data.builders": {"errors", "data.loading", "data.pictures", "data.preparing"},
    "data.inspecting": {"data.loading", "data.preparing"},
    "data": LEAVES | RUNS | {"data.loading", "data.pictures", "data.preparing", "data.builders", "data.inspecting"},
    "visualization": {"errors"},
    # Files that others open, of anything that renders (`exports.protocol`): below sampling, whose scenes export.
    "exports": LEAVES | {"geometry", "viewpoints", "runs", "interrupts", "visualization"},
    # Scenes from pictures, and what shows them; nothing of it knows how a model was trained or is judged.
    "sampling": SAMPLING | {"platforms", "exports", "viewpoints"},
    # A published checkpoint becomes one of ours, with the settings of a config file.
    "interop": SCENE | RUNS,
    "training": ENDS | {"platforms"},
    # What is measured of samples. (`renamed`: commands that are started by their earlier names.)
    "evaluation": ENDS | {"renamed"},
    "renamed": set(),
    "pages": JUDGING | {"exports"},
    # Scenes in 3D: a page that needs no network, and a server to turn, sample and render with.
    "viewer": ENDS | {"exports", "platforms", "viewpoints"},
    # Commands that use a trained model; those beside the main one take a config file as that does.
    # Photographs may come with the cameras of a file that an importer reads.
    "commands": JUDGING | {"pages", "data", "data.builders", "data.preparing", "exports", "viewer"},
    "studies": JUDGING | {"pages", "data", "renamed"},
    # Measuring is at the end of everything, and takes config files as the main command does.
    "profiling": ENDS | {"training", "commands", "pages", "platforms", "renamed"},
    "main": LEAVES | {"allocator", "platforms", "forward_models", "training", "commands", "profiling", "data", "runs"},
}
DATA_ROOMS = {part for part in MAY_IMPORT if part.startswith("data.")}
# What makes data sets of sources, and who must not know it: whoever trains, samples or measures reads what was made.
IMPORTERS = {"data", "data.builders", "data.preparing", "data.inspecting"}
READERS = {"data.loading", "sampling", "training", "evaluation"}

# What only some modules may use, as regular expressions over dotted names and over module names.
COMPILERS = (
    r"forward_models\.train_\w+|"  # commands, of what a model brings along
    r"training\.(sharding|loop)|exports\..*|viewer\..*|sampling\..*|(evaluation|commands|studies)\..*|profiling\..*"
)
RESERVED = [
    (r"jax\.jit", COMPILERS),
    (r"jax\.(sharding\.(Mesh|NamedSharding|PartitionSpec|AxisType)|make_mesh|set_mesh|shard_map)(\..*)?", COMPILERS),
    (r"jax\.lax\.(psum|pmean|pmax|pmin|all_gather|axis_index|with_sharding_constraint)", COMPILERS),
    (r"jax\.distributed(\..*)?", r"runs\.(cluster|log)"),
    (r"ml_collections(\..*)?", r"config\.(command_line|files)"),
    # The core takes typed settings, and does not know where they come from.
    (
        r"dfm_jax\.config\.reading(\..*)?",
        r"main|(config|runs|training|commands|studies|profiling|interop)\..*|sampling\.load",
    ),
    (r"dfm_jax\.config\.command_line(\..*)?", r"main|(evaluation|commands|studies)\..*|profiling\..*|interop\..*"),
    (r"flax\.linen(\..*)?", r"models\..*"),
    (r"clu(\..*)?", r"runs\.metric_writers"),
    (r"matplotlib(\..*)?", r"visualization\.figures"),  # which starts it whatever the environment says
    (r"torch(\..*)?", r"interop\..*|data\.builders\.realestate10k_chunks"),
    (r"pycolmap(\..*)?", r"data\.preparing\.sfm"),
    (r"pillow_heif(\..*)?", r"data\.pictures\.picture_kinds"),
    (r"dfm_jax\.training(\..*)?", r"main|training\..*|profiling\..*"),
    (r"apache_beam(\..*)?", r"data\.preparing\.runners"),
    (r"array_record(\..*)?", r"data\.loading\.records"),
    (r"jax\.pmap|tensorflow(\..*)?", r"(?!)"),  # nobody
]
MESH_AXIS = "fsdp"


def module_name(path: pathlib.Path) -> str:
    """'rendering.render' for dfm_jax/rendering/render.py, 'rendering' for its __init__, '__init__' for the top one."""
    parts = path.relative_to(ROOT / "dfm_jax").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imported_names(tree: ast.AST) -> list[str]:
    """Dotted names of all that is imported, also inside functions: `a.b.c` for `from a.b import c`."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            names += [f"{prefix}.{alias.name}" for alias in node.names]
    return names


def used_names(tree: ast.AST) -> list[str]:
    """Dotted names of all imports and of all attribute chains, with the names that imports gave them resolved."""
    origin = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            origin |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            origin |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    names = imported_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.fullmatch(r"\w+(\.\w+)+", chain := ast.unparse(node)):
            first, rest = chain.split(".", 1)
            names.append(f"{origin.get(first, first)}.{rest}")
    return names


def part_of(module: str) -> str:
    """The most that a module's name tells: 'data.loading' of data.loading.pipeline, 'data' of data.prepare."""
    room = ".".join(module.split(".")[:2])
    return room if room in DATA_ROOMS else module.split(".")[0]


def violations(module: str, source: str) -> list[str]:
    """What the source of `dfm_jax.<module>` does that it must not, one line each."""
    tree = ast.parse(source)
    part = part_of(module)
    if part not in MAY_IMPORT:
        return [f"{module}: a new part of the package needs a line in MAY_IMPORT"]
    problems = []
    for name in imported_names(tree):
        if name.startswith("."):
            problems.append(f"{module}: relative import of {name}")
        elif name.split(".")[0] == "dfm_jax":
            imported = part_of(name.removeprefix("dfm_jax").removeprefix(".") or "__init__")
            if imported not in MAY_IMPORT[part] | {part}:
                problems.append(f"{module}: imports {name}")
    used = used_names(tree)
    for pattern, allowed in RESERVED:
        if not re.fullmatch(allowed, module):
            problems += [f"{module}: uses {name}" for name in used if re.fullmatch(pattern, name)]
    if not re.fullmatch(COMPILERS, module):
        constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        problems += [f"{module}: names the mesh axis {MESH_AXIS!r}"] * constants.count(MESH_AXIS)
    return problems


def import_graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """Which modules each module imports, of those given. Imports inside functions count."""
    graph = {}
    for module, source in sources.items():
        names = [name.removeprefix("dfm_jax.") for name in imported_names(ast.parse(source))]
        candidates = {candidate for name in names for candidate in (name, name.rpartition(".")[0])}
        graph[module] = candidates & sources.keys() - {module}
    return graph


def part_graph(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Which parts each part imports, besides itself."""
    parts = {}
    for module, imported in graph.items():
        parts.setdefault(part_of(module), set()).update(map(part_of, imported))
    return {part: imported - {part} for part, imported in parts.items()}


def reached(graph: dict[str, set[str]], module: str) -> set[str]:
    """All modules that importing one imports in the end, itself too."""
    found, todo = set(), [module]
    while todo:
        if (name := todo.pop()) not in found:
            found.add(name)
            todo += graph[name]
    return found


@pytest.fixture(scope="module")
def package():
    """The import graph of all modules."""
    return import_graph({module_name(path): path.read_text() for path in SOURCES})


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_module_keeps_to_its_layer(path):
    assert violations(module_name(path), path.read_text()) == []


def test_modules_do_not_import_in_circles(package):
    assert package["losses"] >= {"denoiser", "forward_models.protocol"}
    graphlib.TopologicalSorter(package).prepare()


def test_folders_do_not_import_in_circles(package):
    parts = part_graph(package)
    assert parts["data.builders"] >= {"data.preparing", "data.loading"} and "sampling" in parts["commands"]
    graphlib.TopologicalSorter(parts).prepare()
    graphlib.TopologicalSorter({part: may - {part} for part, may in MAY_IMPORT.items()}).prepare()  # nor may they


@pytest.mark.parametrize("reader", sorted(READERS))
def test_training_and_reading_import_no_importer(package, reader):
    modules = [module for module in package if part_of(module) == reader]
    assert modules
    for module in modules:
        importers = [name for name in reached(package, module) if part_of(name) in IMPORTERS]
        assert not importers, f"{module} imports {importers}"


def test_the_loader_imports_no_importer_and_preparing_imports_all(package):
    loader = reached(package, "data.loading.pipeline")
    assert "data.loading.records" in loader and not {part_of(module) for module in loader} & IMPORTERS
    builders = {module for module in package if module.startswith("data.builders.")}
    assert builders <= reached(package, "data.prepare")


# What a config may import: it is read before anything is known to work, and copied by users into folders of their own.
OF_CONFIGS = r"ml_collections(\..*)?|dfm_jax\.config\.variants\.combine|\.+published(\..*)?"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda path: path.stem)
def test_configs_import_their_form_and_what_they_share(path):
    names = imported_names(ast.parse(path.read_text()))
    assert names and [name for name in names if not re.fullmatch(OF_CONFIGS, name)] == []


def test_variants_import_no_more_than_errors(package):
    assert package["config.variants"] == {"errors"}


def test_every_library_that_is_imported_is_required():
    required = required_distributions((ROOT / "setup.py").read_text())
    providers = importlib.metadata.packages_distributions()
    for path in SOURCES:
        libraries = {name.split(".")[0] for name in imported_names(ast.parse(path.read_text()))}
        for library in libraries - sys.stdlib_module_names - {"dfm_jax"}:
            names = {canonical(name) for name in providers.get(library, [library])}
            assert names & required, f"{module_name(path)} imports {library}, which setup.py does not require"


def required_distributions(setup: str) -> set[str]:
    """Names of the distributions in setup.py's REQUIREMENTS and EXTRAS."""
    assignments = [node for node in ast.parse(setup).body if isinstance(node, ast.Assign)]
    values = {node.targets[0].id: ast.literal_eval(node.value) for node in assignments}
    requirements = sum(values["EXTRAS"].values(), values["REQUIREMENTS"])
    return {canonical(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}


def canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


# --- sizes, within which a reader sees a file's plan and a function's whole

LONGEST_FILE, LONGEST_FUNCTION = 300, 50  # lines


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_files_and_functions_are_short(path):
    assert too_long(path.read_text()) == []


def too_long(source: str) -> list[str]:
    """What of a source is longer than it should be."""
    functions = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
    lengths = {"the file": len(source.splitlines())} | {x.name: x.end_lineno - x.lineno + 1 for x in functions}
    return [
        f"{name}: {length} lines"
        for name, length in lengths.items()
        if length > (LONGEST_FILE if name == "the file" else LONGEST_FUNCTION)
    ]
