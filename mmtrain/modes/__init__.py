"""What a command does: one module or package for each `mode=`."""
