"""Manages tokens, groups and audit log of a voiceprint service, beside the running one.

    python manage.py --new_token shop-app --scopes verify,identify --token_file tokens.txt
    python manage.py --tokens --token_file tokens.txt
    python manage.py --rotate_token shop-app --token_file tokens.txt
    python manage.py --revoke_token shop-app --token_file tokens.txt
    python manage.py --groups
    python manage.py --delete_group shop --token_file tokens.txt
    python manage.py --trim_audit --older_than_days 365 --archive audit-2026.jsonl

Scopes: enrol, verify, identify, administer, read. A group's tokens reach its own speakers only.
See docs/operating.md.
"""

import argparse
import os
import sys
from pathlib import Path

from utils.arguments import make_parser, non_negative_float, positive_float
from utils.errors import DatabaseError, run_script
from utils.messages import translate

ABOUT_TOKENS = ("tokens", "new_token", "rotate_token", "revoke_token")
"""Commands that need the token file."""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Reads the options."""
    parser = make_parser(__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--tokens", action="store_true", help="list the tokens")
    what.add_argument("--new_token", metavar="NAME", help="make a token and print it, once")
    what.add_argument(
        "--rotate_token", metavar="NAME", help="make a new token in the place of an old one"
    )
    what.add_argument("--revoke_token", metavar="NAME", help="remove a token")
    what.add_argument("--groups", action="store_true", help="list the groups of speakers")
    what.add_argument(
        "--delete_group", metavar="NAME", help="remove all speakers of a group, and its tokens"
    )
    what.add_argument("--trim_audit", action="store_true", help="remove old lines of the audit log")
    add = parser.add_argument
    add("--token_file", type=Path, help="file of the tokens' lines")
    add("--scopes", help="what the new token allows, separated by commas (default: everything)")
    add("--group", help="whose speakers the new token reaches, *: all (default: those of no group)")
    add("--days", type=positive_float, help="days until the new token expires (default: never)")
    add(
        "--grace_h",
        type=non_negative_float,
        default=24.0,
        help="hours for which the old token stays valid",
    )
    add("--database", help="the service's database (default: as serve.py)")
    add("--older_than_days", type=positive_float, help="which lines of the audit log are old")
    add("--archive", type=Path, help="new file that gets these lines before, as JSON")
    add("--config", help="file of settings in TOML (default: $VOICEPRINT_CONFIG, else none)")
    args = parser.parse_args(argv)
    take_settings(args)
    if args.new_token is None and (args.scopes is not None or args.group is not None):
        parser.error("--scopes and --group are for --new_token; a rotated token keeps its own")
    if args.trim_audit != (args.older_than_days is not None):
        parser.error("--trim_audit and --older_than_days are for each other")
    if args.token_file is None and any(getattr(args, name) for name in ABOUT_TOKENS):
        parser.error("expected --token_file too, which keeps the tokens' SHA-256")
    return args


def take_settings(args: argparse.Namespace) -> None:
    """Takes database and token file from where serve.py has them, unless they are given."""
    from service import configuration, settings

    found = configuration.find_settings(args.config, os.environ, ("database", "token_file"))
    args.database = args.database or found.get("database", settings.DEFAULT_DATABASE)
    args.token_file = args.token_file or found.get("token_file")


def main(argv: list[str] | None = None) -> int:
    """Does what was asked."""
    args = parse_args(argv)
    from service import management

    if args.tokens:
        try:
            with management.opened_database(args.database, os.environ) as database:
                management.print_tokens(args.token_file, database)
        except DatabaseError as error:
            print(translate(f"note: when tokens were used is unknown: {error}"), file=sys.stderr)
            management.print_tokens(args.token_file, None)
    elif args.new_token is not None:
        management.print_new_token(
            args.new_token, args.token_file, args.scopes, args.group, args.days
        )
    elif args.rotate_token is not None:
        management.print_rotated_token(args.rotate_token, args.token_file, args.grace_h, args.days)
    elif args.revoke_token is not None:
        management.print_revoked_token(args.revoke_token, args.token_file)
    else:
        with management.opened_database(args.database, os.environ) as database:
            if args.groups:
                management.print_groups(database)
            elif args.trim_audit:
                management.trim_audit(database, args.older_than_days, args.archive)
            else:
                management.delete_group(database, args.delete_group, args.token_file)
    return 0


if __name__ == "__main__":
    run_script(main)
