"""The documents as a site: hooks of mkdocs (``.ci/site``), and what its navigation is made from.

The index pages are the navigation: ``docs/index.md`` names the parts in order, ``index.md`` of a
part its pages. So whoever reads the files has the same way through as whoever reads the site, and a
page that no index names is an error in both (``missing``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["missing", "navigation", "on_config", "on_files", "on_page_markdown", "title"]

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BESIDE = ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "changes/README.md")
"""Documents outside ``docs/`` that are pages of the site, too."""
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)#\s]*)(#[^)\s]*)?\)")
_CODE = re.compile(r"(^```[^\0]*?^```$|^    .*$)", re.MULTILINE)


def title(page: Path) -> str:
    """First heading of a page."""
    found = re.search(r"^# (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return found[1].replace("`", "") if found else page.stem


def _linked(index: Path) -> Iterator[Path]:
    """Pages at or below the place of an index that it links to, in order, each once."""
    seen = {index}
    for found in _LINK.finditer(index.read_text("utf-8")):
        target = (index.parent / found[3]).resolve()
        below = target.is_relative_to(index.parent) and target.suffix == ".md"
        if below and target not in seen and target.exists():
            seen.add(target)
            yield target


def navigation(index: Path = DOCS / "index.md") -> list[dict[str, Any]]:
    """The navigation below an index, as mkdocs wants it."""
    entries: list[dict[str, Any]] = [{title(index): str(index.relative_to(DOCS))}]
    for page in _linked(index):
        if page.name == "index.md":
            entries.append({title(page): navigation(page)})
        elif index != DOCS / "index.md":
            entries.append({title(page): str(page.relative_to(DOCS))})
    return entries


def _named(entries: Any) -> Iterator[str]:
    for entry in entries:
        for value in entry.values():
            if isinstance(value, str):
                yield value
            else:
                yield from _named(value)


def missing() -> list[str]:
    """Pages below ``docs/`` that the navigation does not reach."""
    named = set(_named(navigation()))
    return sorted(
        path for page in DOCS.rglob("*.md") if (path := str(page.relative_to(DOCS))) not in named
    )


# --- hooks of mkdocs ------------------------------------------------------------------------
def on_config(config: Any) -> Any:
    """Make the navigation from the index pages."""
    config.nav = [*navigation(), {"Project": [{title(ROOT / p): f"project/{p}"} for p in BESIDE]}]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the documents that stand at the top of the repository."""
    from mkdocs.structure.files import File

    for path in BESIDE:
        text = (ROOT / path).read_text("utf-8")
        files.append(File.generated(config, f"project/{path}", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_more: Any) -> str:
    """Have links that leave ``docs/`` lead to pages of the site, or to the repository, if known.

    RAFTCKPT_REPOSITORY is where its files are shown, such as ``https://.../blob/main/``; without it
    such a link is its text.
    """
    source = page.file.src_uri
    outside = source.startswith("project/")
    here = (ROOT / source.removeprefix("project/") if outside else DOCS / source).parent
    repository = os.environ.get("RAFTCKPT_REPOSITORY", "")

    def lead(found: re.Match[str]) -> str:
        bang, text, target, anchor = found[1], found[2], found[3], found[4] or ""
        if "://" in target or not target:
            return found[0]
        path = (here / target).resolve()
        if path.is_dir() and (path / "README.md").exists():
            path = path / "README.md"
        if path.is_relative_to(DOCS) and path.is_file():
            leads = str(path.relative_to(DOCS))
        elif path.is_relative_to(ROOT) and str(path.relative_to(ROOT)) in BESIDE:
            leads = "project/" + str(path.relative_to(ROOT))
        elif path == ROOT / "README.md":
            leads = "index.md"
        elif not path.exists():
            return found[0]  # a dead link: mkdocs says so
        elif repository:
            return f"{bang}[{text}]({repository}{path.relative_to(ROOT)}{anchor})"
        else:
            return text
        return f"{bang}[{text}]({os.path.relpath(leads, os.path.dirname(source) or '.')}{anchor})"

    parts = _CODE.split(markdown)
    # a link may go on in the next line; what is code stays as it is
    text = "".join(part if n % 2 else _LINK.sub(lead, part) for n, part in enumerate(parts))
    if source == "reference/api.md":
        text = text.replace("<!-- docstrings -->", _docstrings())
    return text


def _docstrings() -> str:
    """What mkdocstrings shows: the public names of each module."""
    parts = ["## Docstrings"]
    for module in ("raftckpt", "raftckpt.aio", "raftckpt.ha", "raftckpt.saf", "raftckpt.testing"):
        parts.append(f"::: {module}\n    options:\n      show_root_heading: true\n")
    return "\n\n".join(parts)
