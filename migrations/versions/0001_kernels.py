"""The kernels: extension pg_llm 1.0 with type tensor and every op

Revision ID: 0001
Revises:
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.install_kernels("1.0")


def downgrade() -> None:
    op.remove_kernels()
