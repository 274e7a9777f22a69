"""Labels: from teachers' logits to the targets of students."""
