"""The command line: `python -m pipeline <verb>`. Only this file decides about exit codes of errors.

The verbs are found by pipeline/discovery.py. The file of a verb is imported when the verb runs, so that help answers at
once.
"""

from __future__ import annotations

import argparse
import errno
import os
import select
import signal
import sys
from pathlib import Path

from files.addresses import without_secrets
from files.environment import set_quiet_environment
from files.errors import UserError
from pipeline.command_line import make_parser
from pipeline.discovery import Verb, find_verbs
from pipeline.places import check_checkout, check_home
from pipeline.terminal import outlast_readers
from pipeline.verbosity import set_verbosity

_ACCESS = "make it readable and writable for this user with chmod, or chown {folder} if another user owns it"
_SPACE = "make room in {folder}, then run this again: finished work is kept"
# Errors of the machine, not of this code, and what to do.
_REMEDIES = {
    errno.EACCES: _ACCESS,
    errno.EPERM: _ACCESS,
    errno.EROFS: "{folder} is on a disk that can only be read; use a checkout elsewhere",
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: "{folder} takes no larger file; raise the limit (ulimit -f), or use another disk",
    errno.EIO: "the disk of {folder} does not answer; look at the system's log",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


def main(words: list[str] | None = None) -> int:
    """Run one verb.

    words: the command line after `python -m pipeline`; None takes this process's own.
    Returns the exit code. A UserError, or an error of the machine such as a full disk, is printed as one line on
    standard error, and the page of docs/ that helps in the next line. It gives 1, or the error's own `exit_code`. Any
    other exception is a defect and is raised with its traceback. Ctrl-C gives 130. A reader of the output that goes
    away gives 141, as for other commands.
    """
    set_quiet_environment()
    verbs = find_verbs()
    arguments = make_parser(verbs).parse_args(words)
    verb = verbs[arguments.verb]
    with outlast_readers(of_output=verb.writes_outputs):
        return _run(verb, arguments)


def _run(verb: Verb, arguments: argparse.Namespace) -> int:
    """Run a verb and return the exit code, as `main` does."""
    try:
        with set_verbosity(arguments.verbosity):
            check_home()
            check_checkout()
            code = verb.run(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        if not _is_output_closed():  # a pipe or connection of the work itself
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at exit
        return 128 + signal.SIGPIPE
    except Exception as error:
        if not _is_mendable(error):
            raise
        from pipeline.help_pages import page_for
        from pipeline.progress import printable

        print(f"{arguments.verb}: {printable(_describe(error))}", file=sys.stderr)  # it may hold names from outside
        print(f"see {page_for(error)}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    except KeyboardInterrupt:
        return 130


def _is_output_closed() -> bool:
    """Tell whether nothing reads standard output any more, as in `... --json | head`."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _describe(error: Exception) -> str:
    """Return the message of an error, with what to do if it is one of the machine."""
    if not isinstance(error, OSError):
        return str(error)
    place = f"{os.fsdecode(error.filename)}: " if error.filename else ""
    folder = Path(os.fsdecode(error.filename)).parent if error.filename else "this folder"
    remedy = _REMEDIES.get(error.errno, "").format(folder=folder)
    return without_secrets(f"{place}{error.strerror or error}{remedy and '; '}{remedy}")


def _is_mendable(error: Exception) -> bool:
    """Tell whether the message says what the user can do: a UserError, or an error of the machine."""
    return isinstance(error, UserError) or (isinstance(error, OSError) and error.errno in _REMEDIES)


if __name__ == "__main__":
    sys.exit(main())
