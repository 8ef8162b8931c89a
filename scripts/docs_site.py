"""What `mkdocs build` is told beside mkdocs.yml: pages and files that lie outside docs/.

Results, the changelog, CONTRIBUTING and ARCHITECTURE stay where they are, once, and become pages of
the site under the same path. Links of all pages are written for the checkout; here they are turned
into the site's: docs/x.md is x.md, any other path is itself. A file that a page links to and that
is no page (a recipe, a workflow) is copied, so that nothing leads out of the site.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
INDEX = "README.md"  # is the site's first page
OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "benchmarks/README.md",
           "benchmarks/results/*.md", "benchmarks/results/*/*.md")  # fmt: skip
_LINK = re.compile(r"(\]\()(?![a-z]+:)([^)#\s]+)(#[^)\s]*)?(\))")


def on_config(config: Any) -> Any:
    """Fill the sections that list a folder, so that a new page is found without being named."""
    results = [ROOT / "benchmarks/README.md", *sorted((ROOT / "benchmarks/results").rglob("*.md"))]
    lists = {"RESULTS": results, "DECISIONS": sorted((ROOT / "docs/decisions").glob("*.md"))}
    for section in config["nav"]:
        ((title, pages),) = section.items()
        name = "".join(pages) if isinstance(pages, list) and len(pages) == 1 else ""
        if name in lists:
            paths = sorted(lists[name], key=lambda p: p.name not in ("README.md", "index.md"))
            section[title] = [_site_path(p.relative_to(ROOT).as_posix()) for p in paths]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie outside docs/."""
    files.append(File.generated(config, "index.md", abs_src_path=str(ROOT / INDEX)))
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            where = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, where, abs_src_path=str(path)))
    for path in sorted((ROOT / "docs/notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=notebook(path)))
    return files


def notebook(path: Path) -> str:
    """A notebook as a page: its text, its code, and what its code printed when it was kept."""
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        parts.append(f"```python\n{text}\n```")
        said = ["".join(o.get("text") or o["data"]["text/plain"]) for o in cell["outputs"]]
        if printed := "\n".join(s.rstrip() for s in said):
            parts.append(f"```text\n{printed}\n```")
    title, _, rest = "\n\n".join(parts).partition("\n")
    about = f"[The notebook]({path.name}), and what it printed when it was kept; a test runs it."
    return f"{title}\n\n{about}\n{rest}\n"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn a checkout's links into the site's."""
    here = _checkout_path(page.file.src_uri)

    def turned(match: re.Match[str]) -> str:
        begin, link, anchor, end = match.groups()
        target = posixpath.normpath(posixpath.join(posixpath.dirname(here), link))
        path = ROOT / target
        if path.is_dir() and (found := _index(target)):
            target = found
        elif not path.exists():
            raise PluginError(f"{here}: {link} leads nowhere")
        elif (
            path.is_file() and not target.startswith("docs/") and files.src_uris.get(target) is None
        ):
            files.append(File.generated(config, target, abs_src_path=str(path)))
        site = posixpath.relpath(_site_path(target), posixpath.dirname(page.file.src_uri) or ".")
        return f"{begin}{site}{anchor or ''}{end}"

    return _outside_code(markdown, lambda text: _LINK.sub(turned, text))


def _index(folder: str) -> str:
    """The page that stands for a folder."""
    for name in ("README.md", "index.md"):
        if (ROOT / folder / name).exists():
            return f"{folder}/{name}"
    raise PluginError(f"{folder}: a folder without a page of its own")


def _checkout_path(uri: str) -> str:
    if uri == "index.md":
        return INDEX
    return uri if (ROOT / uri).exists() and not (ROOT / "docs" / uri).exists() else f"docs/{uri}"


def _site_path(target: str) -> str:
    return "index.md" if target == INDEX else target.removeprefix("docs/")


def _outside_code(markdown: str, change: Any) -> str:
    parts = re.split(r"(^```.*?^```[^\n]*$)", markdown, flags=re.S | re.M)
    return "".join(p if i % 2 else change(p) for i, p in enumerate(parts))


def on_post_build(config: Any) -> None:
    """Refuse a site that would ask somebody else for anything when it is looked at."""
    asked = re.compile(
        r"""<(?:link[^>]+rel="?(?:stylesheet|preload|icon)"?[^>]+href|script[^>]+src|img[^>]+src)"""
        r"""="?(https?:)?//""",
    )
    for folder, _, names in os.walk(config["site_dir"]):
        for path in (Path(folder) / n for n in names if n.endswith(".html")):
            if match := asked.search(path.read_text()):
                raise PluginError(f"{path}: asks another host: {match[0]}")
