"""What is known of models before any query: a catalogue, facts, and policies made from both."""
