"""Messages to the webhooks of tasks: signing and delivering them."""
