"""A server whose processes wait for a word and end as it says; see test_forking."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

from hpo.worker.forking import Server, importing, listener


class Exiting(Server):
    def become(self, request: dict[str, Any], descriptor: int) -> NoReturn:
        # Nothing comes: whoever holds the other end has closed it.
        if not os.read(descriptor, 1):
            os._exit(request["closed"])
        sys.exit(request["told"])


if __name__ == "__main__":
    with importing():
        import json  # noqa: F401
    Exiting(listener()).serve()
