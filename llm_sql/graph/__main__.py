"""Writes the built-in architectures' functions, models/functions/forward_*.sql, from their trees."""

from pathlib import Path

import llm_sql.models.functions

from .built_in import ARCHITECTURES


def main() -> None:
    [folder] = llm_sql.models.functions.__path__
    for architecture in ARCHITECTURES:
        (Path(folder) / f"forward_{architecture.name}.sql").write_text(
            architecture.script(), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
