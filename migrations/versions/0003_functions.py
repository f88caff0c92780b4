"""Functions, procedures, views and their triggers

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Functions may call those of later files.
    op.run_sql("SET LOCAL check_function_bodies = off")
    op.run_scripts("0003/functions")
    op.run_scripts("0003/views")
    op.run_sql("SET LOCAL check_function_bodies = on")


def downgrade() -> None:
    op.run_scripts("0003/downgrade.sql")
