"""Training and generation in a single-user backend under valgrind: nothing invalid, uninitialised or lost.

PostgreSQL's own messages do not count: only those with a frame of pg_llm. Its arenas and buffers come from
malloc and are watched; of what lives in memory contexts only uninitialised values are seen.
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from llm_sql.provision import upgrade
from llm_sql.server import EmbeddedServer
from llm_sql.server.install import run_program, server_account
from llm_sql.url import normalize_url

# One statement a line: single-user mode ends a statement with the line.
STATEMENTS = """
SET pg_llm.threads = 2
SELECT llm_build_char_tokenizer('m', $$SELECT 'emma olivia ava'$$)
SELECT llm_create_model('m', 'gpt2', 2, 3, 39, 21, (SELECT count(*)::int FROM llm_bpe_vocab), 1)
INSERT INTO llm_dataset (model, tokens, target) SELECT 'm', array_agg(j % 7), array_agg(j % 5) FROM DATA
SELECT llm_train('m', 3, dropout_p => 0.2, grad_clip => 0.1, batch_size => 2, keep_grad => true)
SET pg_llm.isa = 'scalar'
SELECT llm_train('m', 1, dropout_p => 0.2)
RESET pg_llm.isa
SELECT llm_loss('m', '{{1,2,3},{3,4,5}}', '{{2,3,4},{4,5,-1}}')
SELECT llm_generate('em', 30, 1, 5, 0.9, 'm', 7)
SELECT * FROM llm_beam_search('em', 3, 8, 'm')
SELECT llm_train('m', 1, lr_max => 1e30), llm_train('m', 3)
SELECT llm_evaluate('m', 'train')
SELECT llm_release()
SELECT count(*) AS alive FROM llm_param
""".strip()


@pytest.fixture
def stopped_server() -> Iterator[EmbeddedServer]:
    """A provisioned data directory that no server has open."""
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed")
    home = Path(tempfile.mkdtemp(prefix="llm-sql-valgrind-", dir="/tmp"))
    home.chmod(0o755)
    # Valgrind interprets: small buffers spare it clearing hundreds of megabytes.
    server = EmbeddedServer(home / "home", settings={"shared_buffers": "32MB", "min_wal_size": "80MB"})
    try:
        server.start()
        server.ensure_database("checked")
        upgrade(normalize_url(server.url("checked")).render_as_string(hide_password=False))
        server.stop()
        yield server
    finally:
        server.stop()
        server.release()
        shutil.rmtree(home, ignore_errors=True)


def is_padding_of_wal(error: ElementTree.Element) -> bool:
    """Records of the log have gaps for alignment, which PostgreSQL's own valgrind.supp leaves out, too."""
    return error.findtext("kind") == "SyscallParam" and any(f.text == "XLogWrite" for f in error.iter("fn"))


def test_a_session_has_no_memory_errors(stopped_server: EmbeddedServer) -> None:
    account = server_account()
    with tempfile.TemporaryDirectory(dir="/tmp") as scratch:
        directory = Path(scratch)
        directory.chmod(0o777)
        script, report = directory / "script.sql", directory / "report.xml"
        script.write_text(STATEMENTS.replace("DATA", "generate_series(1, 21) j") + "\n")
        script.chmod(0o644)
        postgres = shlex.quote(str(stopped_server.installation.program("postgres")))
        data = shlex.quote(str(stopped_server.data_directory))
        command = (
            "exec valgrind --quiet --error-limit=no --num-callers=30 --leak-check=full"
            f" --show-leak-kinds=definite --errors-for-leak-kinds=definite --xml=yes --xml-file={report}"
            f" {postgres} --single -D {data} checked < {script}"
        )
        result = run_program(["sh", "-c", command], account, timeout=900)
        errors = ElementTree.parse(report).findall("error")
    assert result.returncode == 0, result.stdout[-3000:]
    # Everything ran to its end; the run with an absurd rate failed as it should.
    assert "alive" in result.stdout
    assert result.stdout.count("ERROR:") == 1, result.stdout[-3000:]
    ours = [
        error
        for error in errors
        if any("pg_llm" in (o.text or "") for o in error.iter("obj")) and not is_padding_of_wal(error)
    ]
    assert not ours, "\n\n".join(ElementTree.tostring(error, encoding="unicode") for error in ours[:3])
