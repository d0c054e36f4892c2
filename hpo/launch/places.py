"""Where a study and its files lie when nobody says otherwise: in the project folder."""

from __future__ import annotations

from pathlib import Path

from hpo.artifacts import Place, open_artifacts

# How many seconds whoever works on a study waits for a database that is away.
DB_TIMEOUT = 300.0


def storage_url(storage: str | None, project: Path) -> str:
    """URL of the database, with `embedded` and nothing at all spelled out."""
    if storage == "embedded":
        return f"embedded:{project / 'hpo-postgresql'}"
    return storage or f"sqlite:///{project / 'hpo.db'}"


def artifacts_place(artifacts: str | None, project: Path) -> Place:
    """Folder or URL of checkpoints and pictures."""
    return open_artifacts(artifacts) if artifacts else project / "artifacts"


def bundle_folder(out: Path | None, project: Path, study: str) -> Path:
    """Folder of a study's exported bundle."""
    return out or project / "bundles" / study
