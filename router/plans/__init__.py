"""Plans: candidates made of experts, whose answer is accepted by evidence or replaced by another expert's."""
