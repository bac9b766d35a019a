"""The LoRAs of this server."""
