"""The models that exist, what each is made of, and the table that is in force."""
