"""What models read and write: conversation formats, tags, spans."""
