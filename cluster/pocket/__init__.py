"""How the pocket experts and their policy are made: recipes, questions, training."""
