"""What a machine can run: memory plans, the next plan after out-of-memory, seconds, attention kernel."""
