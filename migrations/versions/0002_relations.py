"""The relations: models, parameters, data, tape, runs, checkpoints, tokenizers

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.run_scripts("0002/upgrade.sql")


def downgrade() -> None:
    op.run_scripts("0002/downgrade.sql")
