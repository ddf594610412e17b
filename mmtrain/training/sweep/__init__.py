"""Files of a sweep that its runs read and write."""
