"""The supported models, what each is made of, and the table in force."""
