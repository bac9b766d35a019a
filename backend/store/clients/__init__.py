"""What is owed to client programs: answers to calls that they repeat, and messages to their webhooks."""
