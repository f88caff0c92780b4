"""Roles and grants: llm_reader selects, generates and evaluates; llm_trainer also writes what training
writes.

Every function runs with its caller's rights, so the rights on relations decide; nobody else, PUBLIC included,
may read anything. Roles belong to the whole cluster and may be missing where provisioning lacked CREATEROLE.
"""

from __future__ import annotations

from dataclasses import dataclass

from .base import metadata
from .objects import declared_objects

READER = "llm_reader"
TRAINER = "llm_trainer"
ROLES = (READER, TRAINER)
PUBLIC = "PUBLIC"

_WRITE = ("INSERT", "UPDATE", "DELETE")
# A row of llm_arch names functions that run with the rights of whoever uses the model, an administrator
# perhaps: registering one is the owner's business.
_OWNER_WRITES = {"llm_arch"}
# Functions of the extension that are nobody's unless granted. Those of checkpoints take no path and no
# query, and
# look at no role by its name: who may execute them saves and loads.
_TENSORS = 'OUT "position" bigint, OUT name text, OUT dtype text, OUT shape bigint[], OUT format text'
_READ_FILES = (
    f"pg_llm_file_tensors(path text, max_bytes bigint, checkpoint boolean, {_TENSORS})",
    "pg_llm_file_tensor(path text, name text, first_row bigint, rows bigint, checkpoint boolean)",
    "pg_llm_file_bytes(path text, name text, checkpoint boolean)",
    "pg_llm_file_metadata(path text, key text, checkpoint boolean)",
    "pg_llm_file_sha256(path text, checkpoint boolean, OUT bytes bigint, OUT sha256 text)",
)
_WRITE_FILES = (
    "pg_llm_file_write(path text, format text, tensors text, data text, argument text, metadata text[],"
    " checkpoint boolean, OUT bytes bigint, OUT sha256 text)",
)
_CHECKPOINTS = (
    "pg_llm_checkpoint_write(model text, OUT file text, OUT bytes bigint, OUT sha256 text)",
    f"pg_llm_checkpoint_tensors(id bigint, {_TENSORS})",
    "pg_llm_checkpoint_tensor(id bigint, name text, first_row bigint, rows bigint)",
    "pg_llm_checkpoint_bytes(id bigint, name text)",
    "pg_llm_checkpoint_metadata(id bigint, key text)",
    "pg_llm_checkpoint_sweep()",
)
_OF_EXTENSION = {READER: _WRITE_FILES, TRAINER: (*_READ_FILES, *_WRITE_FILES, *_CHECKPOINTS)}
# Session state, not data: whoever may call the ops may record them.
_SESSION_STATE = {"llm_autograd_mode"}


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
    return tuple(sorted([*metadata.tables, *views]))


def declared_grants() -> tuple[Grant, ...]:
    """Every privilege of somebody other than the owner; on relations PUBLIC has none but those here."""
    tables = set(metadata.tables)
    grants = []
    for name in relation_names():
        writes = _WRITE if name in tables - _OWNER_WRITES else ()
        if name in _SESSION_STATE:
            grants += [
                Grant(role, "TABLE", f"public.{name}", ("SELECT", *_WRITE)) for role in (*ROLES, PUBLIC)
            ]
        else:
            grants.append(Grant(READER, "TABLE", f"public.{name}", ("SELECT",)))
            grants.append(Grant(TRAINER, "TABLE", f"public.{name}", ("SELECT", *writes)))
    for role in ROLES:
        grants.append(Grant(role, "SEQUENCE", "public.llm_pass_seq", ("USAGE",)))
        grants += [Grant(role, o.kind, o.identity, ("EXECUTE",)) for o in declared_objects() if o.is_routine]
        grants += [Grant(role, "FUNCTION", f"public.{name}", ("EXECUTE",)) for name in _OF_EXTENSION[role]]
    return tuple(sorted(grants))
