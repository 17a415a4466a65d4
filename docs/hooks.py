"""What the site takes from the rest of the checkout: results of benchmarks, the changelog, a page for every public module.

mkdocs calls the functions named `on_…`. Pages are written for readers of the checkout, too, so that their links go to files
of the checkout; here they become links of the site, or plain text where the site has no such page.
"""

import ast
import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = "benchmarks/results"
SHOWN = (".md", ".png", ".mp4")
"""Suffixes of the results that the site shows."""
MODULES = (
    "mpc",
    "mpc.costs",
    "mpc.constraints",
    "mpc.spaces",
    "mpc.risk",
    "mpc.cascade",
    "mpc.trigonometry",
    "mpc.planners.base",
    "mpc.planners.auto",
    "mpc.estimation",
    "mpc.safety",
    "mpc.runtime",
    "mpc.realtime",
    "mpc.serving",
    "mpc.agent",
    "mpc.agent.cost.terms",
    "world_models",
    "world_models.data",
    "world_models.losses.anticollapse",
    "world_models.losses.bottleneck",
    "world_models.networks",
    "envs",
    "envs.task",
    "envs.wrappers",
)
"""Modules with a page in the reference."""
_CODE = re.compile(r"(^```.*?^```)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def source(module: str) -> Path:
    """Return the file of a module."""
    path = ROOT / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def public(module: str) -> list[str]:
    """Return the public names of a module: those of `__all__`, or else what it defines without an underscore."""
    body = ast.parse(source(module).read_text()).body
    defined: list[str] = []
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        if names == ["__all__"]:
            return list(ast.literal_eval(node.value))  # type: ignore[attr-defined]
        defined += names
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.append(node.name)
    return [name for name in defined if not name.startswith("_")]


def page(module: str) -> str:
    """Return the page of a module in the reference, as Markdown."""
    summary = (ast.get_docstring(ast.parse(source(module).read_text())) or "").split("\n\n")[0]
    names = [name for name in public(module) if f"{module}.{name}" not in MODULES and not name.startswith("_")]
    return "\n\n".join([f"# {module}", summary, *(f"::: {module}.{name}" for name in names)]) + "\n"


def contents() -> str:
    """Return the first page of the reference."""
    rows = [f"| [`{module}`]({module}.md) | {', '.join(f'`{name}`' for name in public(module))} |" for module in MODULES]
    return "\n".join(["# Reference", "", "| module | public names |", "|---|---|", *rows]) + "\n"


def on_config(config: Any) -> Any:
    """List the pages of the reference in the navigation."""
    pages: list[Any] = ["reference/index.md", *({module: f"reference/{module}.md"} for module in MODULES)]
    for section in config["nav"]:
        if "Reference" in section:
            section["Reference"] = pages
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are not files of `docs`."""
    from mkdocs.structure.files import File, InclusionLevel

    made = {"changelog.md": (ROOT / "CHANGELOG.md").read_text(), "reference/index.md": contents()}
    made |= {f"reference/{module}.md": page(module) for module in MODULES}
    for uri, text in made.items():
        files.append(File.generated(config, uri, content=text))
    for path in sorted((ROOT / RESULTS).rglob("*")):
        if path.suffix in SHOWN:
            uri = f"results/{path.relative_to(ROOT / RESULTS).as_posix()}"
            files.append(File.generated(config, uri, abs_src_path=str(path), inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links to files of the checkout into links of the site."""
    uri = page.file.src_uri
    here = PurePosixPath("docs", uri).parent
    if uri == "changelog.md":
        here = PurePosixPath()
    elif uri.startswith("results/"):
        here = PurePosixPath("benchmarks", uri).parent
    known = {file.src_uri for file in files}

    def site(match: re.Match[str]) -> str:
        picture, text, target, anchor = match.groups()
        if "://" in target:
            return match.group(0)
        place = normpath(str(here / target))
        for folder, prefix in ((f"{RESULTS}/", "results/"), ("docs/", "")):
            if place.startswith(folder) and prefix + place.removeprefix(folder) in known:
                found = relpath(prefix + place.removeprefix(folder), str(PurePosixPath(uri).parent))
                return f"{picture}[{text}]({found}{anchor or ''})"
        return text

    parts = _CODE.split(markdown)  # text and code in turns
    return "".join(part if index % 2 else _LINK.sub(site, part) for index, part in enumerate(parts))
