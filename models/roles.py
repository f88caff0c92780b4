"""Roles and grants: llm_reader selects, generates and evaluates; llm_trainer also writes what training
writes.

Every function runs with its caller's rights, so the rights on relations decide; nobody else, PUBLIC included,
may read anything, or run anything but what computes with the values it is given. Roles belong to the whole
cluster and may be missing where provisioning lacked CREATEROLE.
"""

from __future__ import annotations

from dataclasses import dataclass

from .base import table_names
from .objects import declared_objects

READER = "llm_reader"
TRAINER = "llm_trainer"
ROLES = (READER, TRAINER)
PUBLIC = "PUBLIC"

_WRITE = ("INSERT", "UPDATE", "DELETE")
# A row of llm_arch names functions that run with the rights of whoever uses the model, an administrator
# perhaps: registering one is the owner's business.
_OWNER_WRITES = {"llm_arch"}
# Written by readers too: whether a session records its passes is no data.
_SESSION_STATE = {"llm_autograd_mode"}
# Alembic's; whoever uses the tool asks it which revision is installed.
VERSION_TABLE = "llm_sql_version"
# The extension's functions that the roles are not granted, by the beginnings of their names: readers neither
# touch files nor claim to train; files outside of the checkpoint directory take pg_read_server_files.
WITHHELD = {
    READER: (
        "pg_llm_read_file",
        "pg_llm_file_(tensor|bytes|metadata|sha256)",
        "pg_llm_checkpoint_",
        "pg_llm_progress",
        "pg_llm_(try|hold)_lock",
        "pg_llm_arena_adamw",
        "pg_llm_arena_(saved|keep)",
    ),
    TRAINER: ("pg_llm_read_file", "pg_llm_checkpoint_(files|name|orphans)"),
}


@dataclass(frozen=True, order=True)
class Grant:
    """Privileges on one object for one role; `kind` and `target` are what GRANT takes after ON."""

    role: str
    kind: str
    target: str
    privileges: tuple[str, ...]

    @property
    def grant(self) -> str:
        return f"GRANT {', '.join(self.privileges)} ON {self.kind} {self.target} TO {self.role}"

    @property
    def revoke(self) -> str:
        return f"REVOKE {', '.join(self.privileges)} ON {self.kind} {self.target} FROM {self.role}"


def relation_names() -> tuple[str, ...]:
    """Tables and views, by name."""
    views = (o.name for o in declared_objects() if o.kind == "VIEW")
    return tuple(sorted([*table_names(), *views]))


def declared_grants() -> tuple[Grant, ...]:
    """Every privilege on what is declared here of somebody other than the owner; PUBLIC has none."""
    tables = set(table_names())
    grants = [Grant(role, "TABLE", f"public.{VERSION_TABLE}", ("SELECT",)) for role in ROLES]
    for name in relation_names():
        writes = _WRITE if name in tables - _OWNER_WRITES else ()
        if name in _SESSION_STATE:
            grants += [Grant(role, "TABLE", f"public.{name}", ("SELECT", *_WRITE)) for role in ROLES]
        else:
            grants.append(Grant(READER, "TABLE", f"public.{name}", ("SELECT",)))
            grants.append(Grant(TRAINER, "TABLE", f"public.{name}", ("SELECT", *writes)))
    for role in ROLES:
        grants.append(Grant(role, "SEQUENCE", "public.llm_pass_seq", ("USAGE",)))
        grants += [Grant(role, o.kind, o.identity, ("EXECUTE",)) for o in declared_objects() if o.is_routine]
    return tuple(sorted(grants))
