"""A process that has imported what `hpo worker` needs and forks the workers of a launcher.

A client sends the command's arguments and one end of a pipe, the worker's stdin. Environment,
working directory and output are the server's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import Any, NoReturn

from setproctitle import setproctitle

from hpo.cli import main
from hpo.worker.forking import Server, importing, listener


class _Workers(Server):
    def become(self, request: dict[str, Any], descriptor: int) -> NoReturn:
        os.dup2(descriptor, 0)
        os.close(descriptor)
        sys.argv = ["hpo", *request["arguments"]]
        # For `ps`, and for whoever looks for a worker by its name.
        setproctitle(" ".join(sys.argv))
        # The launcher says it, once for all of its workers.
        logging.getLogger("hpo.study.outage").setLevel(logging.ERROR)
        main()


def _import_everything() -> None:
    import numpy.random  # noqa: F401

    import hpo.launch.local
    import hpo.study.pruners
    import hpo.study.tpe
    import hpo.worker.loop
    import hpo.worker.parent
    import hpo.worker.signals  # noqa: F401
    from hpo.study.urls import import_driver

    # Where that is not possible, the workers will say so.
    with contextlib.suppress(Exception):
        import_driver(os.environ["HPO_STORAGE"])


if __name__ == "__main__":
    with importing():
        _import_everything()
    _Workers(listener()).serve()
