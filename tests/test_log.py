"""What commands show of what is logged, and how they end."""

import logging

import jax
import pytest

from dfm_jax.errors import UserError
from dfm_jax.runs import log

logger = logging.getLogger("dfm_jax.anything")


def test_lines_are_shown_as_they_are(capsys):
    log.to_terminal()  # twice is as once
    logger.info("step 1/2: 50%")
    logger.debug("details")
    assert capsys.readouterr().err == "step 1/2: 50%\n"


def test_of_several_processes_the_others_show_errors_only(capsys, monkeypatch):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    for process in (0, 1):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        logger.info(f"info {process}")
        logger.warning(f"warning {process}")
        logger.error(f"error {process}")
    assert capsys.readouterr().err.split("\n")[:-1] == ["info 0", "warning 0", "error 0", "error 1"]


@pytest.mark.parametrize("error", [UserError("no such file"), OSError("no such file")])
def test_what_a_user_can_mend_is_one_line(error, capsys):
    @log.command
    def run(argv):
        raise error

    assert run([]) == 1 and capsys.readouterr().err == "error: no such file\n"


def test_a_fault_of_the_program_is_not_hidden():
    @log.command
    def run(argv):
        return argv[1]

    with pytest.raises(IndexError):
        run([])
