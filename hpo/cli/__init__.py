"""The `hpo` command: parses, calls, prints. Nothing but this and `hpo.console` prints or exits.

What needs Optuna, SQLAlchemy or rich is imported inside the commands, so `hpo --help` is quick.
Data goes to stdout, progress and logs to stderr.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
from typing import NoReturn

import click

from hpo import __version__
from hpo.cli import models, projects, searching, watching
from hpo.console import hide_passwords_from_ps, without_passwords
from hpo.errors import HpoError

_MANY_OBJECTS = 50_000


def main() -> NoReturn:
    """Runs a command; every error becomes one message and its exit code."""
    hide_passwords_from_ps()
    # Imported modules stay: to look for garbage among them costs a tenth of a short command.
    gc.set_threshold(_MANY_OBJECTS)
    # At its end, too. Called last of all, it leaves nothing to look through.
    atexit.register(gc.freeze)
    try:
        code = cli(standalone_mode=False)
    except HpoError as error:
        click.echo(f"error: {without_passwords(str(error))}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        words = io.StringIO()
        error.show(words)
        click.echo(without_passwords(words.getvalue()), err=True, nl=False)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read the output has gone, as in `hpo status --json | head -1`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hpo")
def cli() -> None:
    """Hyperparameter optimization for Keras: launch workers, watch the study, export the model."""


for _command in (
    projects.init,
    searching.run,
    searching.submit,
    searching.import_kerastuner,
    projects.validate,
    projects.data,
    projects.schema,
    searching.worker,
    watching.status,
    watching.best,
    models.export,
    models.predict,
    watching.dashboard,
    searching.stop,
    searching.resume,
    projects.doctor,
):
    cli.add_command(_command)
