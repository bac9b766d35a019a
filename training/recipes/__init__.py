"""The recipe of each model and of the LoRAs, and the folders they write."""
