"""Runs commands of the scripts that kill themselves before a write to the database. A script.

Reads JSON from stdin: `[[script, [option, ...], moment], ...]`. A command dies by SIGKILL before
its `moment`-th statement that writes or commit, counted from 1. Prints the exit statuses as JSON.
"""

import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sqlalchemy import event
from sqlalchemy.engine import Engine

WRITES = ("INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER")


def die_before(moment: int) -> None:
    """Lets this process die before a write."""
    left = moment

    def count(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def look(_: Any, __: Any, statement: str, *___: Any) -> None:
        if statement.lstrip().upper().startswith(WRITES):
            count()

    event.listen(Engine, "before_cursor_execute", look)
    event.listen(Engine, "commit", count)


def main() -> None:
    statuses = []
    for script, options, moment in json.load(sys.stdin):
        run = importlib.import_module(script).main  # imported once, for all
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            die_before(moment)
            os._exit(run(options))
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(json.dumps(statuses))


if __name__ == "__main__":
    main()
