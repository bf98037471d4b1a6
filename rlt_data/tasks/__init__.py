"""Final answers: extraction and verification."""
