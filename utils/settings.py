"""Fields of settings that the options of a script fill, declared without argparse.

`utils.arguments` makes options of them.
"""

from dataclasses import field
from typing import Any


def option(default: Any, check: str = "", help: str | None = None, **more: Any) -> Any:
    """Returns a dataclass field that an option sets.

    Args:
        default: The field's default, and the option's unless `preset` is given.
        check: Which function reads a value of the option: its name, empty for any text.
        help: What `--help` says of it.
        **more: `name` of the option, if it is not the field's; `preset`, its default; anything
            else goes to `add_argument`. A field that is true by default is switched off by its
            option.
    """
    return field(default=default, metadata={"check": check, "help": help, **more})
