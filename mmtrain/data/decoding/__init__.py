"""Cells and files to contents: pictures, sounds, films and dialogues."""
