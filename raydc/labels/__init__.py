"""Labels: from teachers' logits to what students learn."""
