"""The page for people: what the model reads, sliders, features, transcripts, alerts and policies, in a browser."""
