"""Roles and grants, seed rows, and the library that every session of the database loads

Revision ID: 0004
Revises: 0003
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.run_scripts("0004/roles.sql")
    op.run_scripts("0004/seeds.sql")
    op.run_scripts("0004/preload.sql")


def downgrade() -> None:
    op.run_scripts("0004/unload.sql")
    op.run_scripts("0004/unseed.sql")
    op.run_scripts("0004/drop_roles.sql")
