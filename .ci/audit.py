"""`make audit`: known weaknesses of what is installed, where a database of advisories can be reached.

Exits with 1 for a weakness. Without a database it says that nothing was audited and exits with 0, so that a
gate without a network can be passed; it never says that there is no weakness when nobody was asked.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SERVICES = ("osv", "pypi")
"""Databases that pip-audit can ask, the more complete one first."""
PATIENCE_SECONDS = 300


def reported(service: str) -> Sequence[Mapping[str, Any]]:
    """Packages as pip-audit reports them; empty where the database does not answer."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip_audit", "--skip-editable", "--progress-spinner", "off"]
        command += ["--vulnerability-service", service, "--format", "json", "--output", str(report)]
        try:
            subprocess.run(command, capture_output=True, timeout=PATIENCE_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return []
        return json.loads(report.read_text())["dependencies"] if report.is_file() else []


def verdict(packages: Sequence[Mapping[str, Any]]) -> tuple[list[str], int]:
    """What is said of packages, and the exit code; one that was skipped was not audited."""
    audited = [package for package in packages if "vulns" in package]
    if not audited:
        return ["Not audited: no database of advisories can be reached from here."], 0
    skipped = [package["name"] for package in packages if "vulns" not in package]
    said = [
        f"{package['name']} {package['version']}: {weakness['id']}, mended in "
        f"{', '.join(weakness['fix_versions']) or 'no version yet'}"
        for package in audited
        for weakness in package["vulns"]
    ]
    found = len(said)
    said.append(f"{len(audited)} packages audited, {found} known weaknesses.")
    if skipped:
        said.append(f"Not audited, since the database does not have them: {', '.join(sorted(skipped))}.")
    return said, 1 if found else 0


def main() -> int:
    """The command; returns its exit code."""
    if find_spec("pip_audit") is None:
        print("Not audited: pip-audit is not installed; `pip install -e '.[dev]'` brings it.")
        return 0
    reports = (reported(service) for service in SERVICES)
    packages = next((found for found in reports if any("vulns" in package for package in found)), [])
    said, code = verdict(packages)
    print("\n".join(said))
    return code


if __name__ == "__main__":
    sys.exit(main())
