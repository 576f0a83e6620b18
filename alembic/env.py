"""What Alembic runs for each of its commands: everything it does is in syntegra_db.migrations.environment."""

from alembic import context

from syntegra_db.migrations import environment
from syntegra_db.models import Base

environment.run(context, Base.metadata)
