"""The models of this server: which are here, fetching them, advice, cleaning up."""
