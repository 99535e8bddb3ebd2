"""Calls commands in this process, and carries out runs here, too, for the tests of the command line."""

import sys

import pytest

from semiseg.console import cli
from semiseg.contract import CPU
from semiseg.training.run import execute

carried_out: list[str] = []  # the folders of runs, in their order, since a test cleared it


def call(*arguments):
    """The exit code of a command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["semiseg", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as end:
            return end.code or 0
    return 0


def in_this_process(self, specs, places):
    """Stands for the executor, which would spend its time on starting processes."""
    for spec in () if self.dry_run else specs:
        carried_out.append(spec.folder.as_posix())
        yield spec, execute(spec, places, CPU)
