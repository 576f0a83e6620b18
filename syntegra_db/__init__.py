"""The shape of SYNTEGRA's data on PostgreSQL: models, migrations and the tools around them."""
