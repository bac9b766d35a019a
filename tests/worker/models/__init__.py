"""Tasks and the models that they need: fetched, changed on disk, absent, replaced by another one."""
