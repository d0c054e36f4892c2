"""A `StudySpec` back into a study file, for the folder of an exported model."""

from __future__ import annotations

import os
from pathlib import Path

from hpo.spec.models import StudySpec


def write_study_file(spec: StudySpec, path: Path, header: str = "") -> None:
    """Writes a study file that `load_study_file` reads back to an equal spec.

    `header` becomes comment lines at the top. The file appears whole or not at all; OSError is
    raised where it can't be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(study_file_text(spec, header))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def study_file_text(spec: StudySpec, header: str = "") -> str:
    """Writes a spec as YAML 1.2, without what equals its default."""
    from hpo.spec.yaml12 import OneLine, write

    content = spec.model_dump(mode="json", exclude_defaults=True)
    space = content.get("space", {})
    for name, entry in space.items():
        if isinstance(entry, dict):
            space[name] = OneLine({"type": entry["type"], **entry})
    for strategy in ("sampler", "pruner"):
        if list(content["search"].get(strategy, ())) == ["type"]:
            content["search"][strategy] = content["search"][strategy]["type"]
    comments = [f"# {line}".rstrip() + "\n" for line in header.splitlines()]
    return "".join(comments) + write(content)
