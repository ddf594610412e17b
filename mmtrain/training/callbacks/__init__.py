"""What happens beside training: stopping cleanly, the tables, the progress bar."""
