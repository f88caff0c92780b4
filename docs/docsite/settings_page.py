"""The settings of the extension, as pg_settings tells them, and who may change each."""

from __future__ import annotations

from . import UndocumentedError
from .catalog import Catalog
from .markup import code, page, paragraphs, prose, table
from .sql_pages import Names, anchor

WHO = {
    "user": "Every role may set it: `SET`, `SET LOCAL` for a transaction, `ALTER ROLE ... SET`.",
    "superuser": "Only a superuser may set it, or a role with `GRANT SET ON PARAMETER`.",
    "sighup": "Set in postgresql.conf or by `ALTER SYSTEM`, and taken over at a reload.",
    "postmaster": "Set in postgresql.conf or by `ALTER SYSTEM`, and taken over at a start of the server.",
}


def pages(catalog: Catalog) -> tuple[dict[str, str], Names]:
    unknown = {setting.context for setting in catalog.settings} - WHO.keys()
    if unknown:
        raise UndocumentedError(
            f"docs/docsite/settings_page.py does not say who may change a setting of {unknown}"
        )
    overview = table(
        ["setting", "what it does"],
        ([code(s.name), prose(s.short)] for s in catalog.settings),
    )
    entries = [
        "\n\n".join(
            [
                f"## `{s.name}`",
                paragraphs(f"{s.short} {s.extra or ''}"),
                f"Values: {prose(s.values)}{_unit(s.unit)}. Default: {_told(s.default)}.",
                WHO[s.context],
            ]
        )
        for s in catalog.settings
    ]
    text = page(
        "Settings",
        "Set them as any setting of PostgreSQL. `SHOW` and `pg_settings` know them once the library is"
        " loaded: a provisioned database loads it in every session (`session_preload_libraries`), else the"
        " first call of one of its functions does.",
        overview,
        *entries,
    )
    return {"settings": text}, {s.name: ("reference/settings", anchor(s.name)) for s in catalog.settings}


def _unit(unit: str | None) -> str:
    return f", in {unit}" if unit else ""


def _told(value: str) -> str:
    return code(value) if value else "empty"
