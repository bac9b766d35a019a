"""The processes that make videos: claim, run, finish; and the supervisor that keeps one of them alive."""
