"""The hook of mkdocs: pages from outside docs/, and links between all pages.

Pages are written for the repository: a link is a path relative to its own file, as GitHub resolves it. This
hook adds pages of other folders to the site and rewrites every link to the place of its target in the site.
A link to a file that does not exist, or has no page in the site, ends the build.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
    "cluster/README.md": "launchers.md",
    "search_spaces": "studies.md",
}
"""Files (and a folder, whose page is made of its study files), with their pages in the site."""
LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")
FENCE = re.compile(r"^(```.*?^```[^\n]*$)", re.MULTILINE | re.DOTALL)


def outside_code(markdown: str, change: Callable[[str], str]) -> str:
    """`change` applied to the parts of a page that are not blocks of code."""
    return "".join(part if part.startswith("```") else change(part) for part in FENCE.split(markdown))


def target_of(link: str, source: str) -> str | None:
    """The path in the repository that a link in the file `source` leads to; None for other sites, headings.

    Raises `FileNotFoundError` if nothing is there.
    """
    path = link.partition("#")[0]
    if not path or re.match(r"[a-z]+:", path):
        return None
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if not (ROOT / target).exists():
        raise FileNotFoundError(f"{source} links to {link}, which does not exist")
    return target


def in_site(target: str) -> str:
    """The page or file of the site for a path in the repository; `FileNotFoundError` if it has none."""
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    if target not in OUTSIDE:
        raise FileNotFoundError(f"{target} has no page in the site; add it to OUTSIDE in .ci/site_pages.py")
    return OUTSIDE[target]


def for_site(markdown: str, source: str) -> str:
    """A page of the repository with its links as the site needs them; `source` is its path there."""
    here = posixpath.dirname(in_site(source))

    def turned(match: re.Match[str]) -> str:
        target = target_of(match[0], source)
        if target is None:
            return match[0]
        _, mark, heading = match[0].partition("#")
        return posixpath.relpath(in_site(target), here or ".") + mark + heading

    return outside_code(markdown, lambda text: LINK.sub(turned, text))


def studies_page() -> str:
    """The page of the study files that come with raydc, each as it is."""
    head = (
        "# The studies that come with raydc\n\n"
        "Run one by its name (`raydc run quickstart`), or copy one and change it. The comment at the top of "
        "each gives the command, the number of evaluations, the hardware, the time and the expected result.\n"
    )
    studies = (
        f"\n## {path.stem}\n\n```yaml\n{path.read_text(encoding='utf-8').rstrip()}\n```\n"
        for path in sorted((ROOT / "search_spaces").glob("*.yaml"))
    )
    return head + "".join(studies)


def content_of(source: str) -> str:
    """The text of a page that lies outside docs/."""
    path = ROOT / source
    return studies_page() if path.is_dir() else path.read_text(encoding="utf-8")


# --- called by mkdocs -----------------------------------------------------------------------------


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie outside docs/."""
    from mkdocs.structure.files import File

    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=content_of(source)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn the links of a page; one that leads nowhere ends the build."""
    from mkdocs.exceptions import PluginError

    sources: Mapping[str, str] = {site: source for source, site in OUTSIDE.items()}
    path = page.file.src_uri
    try:
        return for_site(markdown, sources.get(path, f"docs/{path}"))
    except FileNotFoundError as error:
        raise PluginError(str(error)) from error
