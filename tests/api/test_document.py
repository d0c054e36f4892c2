"""The examples of docs/python-api.md work as they are printed there, with fewer trials."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.api.conftest import Script
from tests.conftest import ROOT

pytestmark = [pytest.mark.keras, pytest.mark.slow]


@pytest.mark.long
def test_the_examples(script: Script, folder: Path) -> None:
    text = (ROOT / "docs" / "python-api.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    done = script(
        "".join(blocks).replace("trials=20", "trials=2").replace('"epochs": 30', '"epochs": 2')
    )
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (folder / "model").iterdir()}
    assert names >= {"model.keras", "config.yaml", "metrics.json"}
