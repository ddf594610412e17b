"""The modes of the command: one module or package for each `mode=`."""
