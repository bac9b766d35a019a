"""The only place with SQL: connections, tables, tasks, events, outputs, workers, migrations. Knows the domain only."""
