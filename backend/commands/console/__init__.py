"""What commands share of the terminal: output, options, advice on errors, and the progress bar."""
